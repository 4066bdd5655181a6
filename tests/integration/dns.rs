//! When the name of STS cannot be resolved, or not soon.

use std::thread;
use std::time::{Duration, Instant};

use bson::doc;
use local_sts::{Dns, DnsResponse};

use crate::support::dns;
use crate::support::fixture::Fixture;

#[test]
fn a_silent_dns_denies_a_login_in_time_holds_up_nobody_else_and_is_asked_again() {
    let names = Dns::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::start_with(|builder| dns::asking(builder, &names, folder.path()));
    fixture.create_scram_user();
    // What was resolved is kept for a while, so that each part has a name of its own.
    let go_to = |name: &str| {
        let port = fixture.sts.address().port();
        fixture.set_parameter("awsStsEndpoint", format!("https://{name}.example.com:{port}"));
    };
    go_to("answered");
    fixture.assert_still_serves("a move to a name");
    assert!(names.query_count() > 0, "the name was not asked of this server");

    fixture.set_parameter("awsStsTimeoutMS", 1500);
    names.set_response(DnsResponse::Silence);
    go_to("silent");
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let start = Instant::now();
            (fixture.login(&fixture.user).is_err(), start.elapsed())
        });
        let mut logins = 0;
        while !slow.is_finished() {
            let start = Instant::now();
            fixture.scram_login();
            fixture.mongod.run_as_admin("admin", doc! { "ping": 1 });
            assert!(start.elapsed() < Duration::from_secs(1), "others waited for DNS");
            logins += 1;
            thread::sleep(Duration::from_millis(20));
        }
        let (denied, took) = slow.join().unwrap();
        assert!(denied);
        assert!(took >= Duration::from_millis(1400) && took < Duration::from_secs(5), "{took:?}");
        assert!(logins > 1, "nobody logged in meanwhile");
    });
    let reasons = fixture.denial_reasons(1);
    let port = fixture.sts.address().port();
    let slow = format!("name resolution of the endpoint silent.example.com:{port} timed out after ");
    assert!(reasons[0].contains(&slow), "{reasons:?}");

    // The system's resolver is still asking for that login; it tries again within a second.
    names.set_response(DnsResponse::Address([127, 0, 0, 1].into()));
    fixture.set_parameter("awsStsTimeoutMS", 10_000);
    fixture.assert_still_serves("a silent DNS");

    // It may ask again for as long as it has time.
    fixture.set_parameter("awsStsTimeoutMS", 1500);
    names.set_response(DnsResponse::NoSuchName);
    go_to("nowhere");
    assert!(fixture.login(&fixture.user).is_err());
    let reasons = fixture.denial_reasons(2);
    let nowhere = format!("the endpoint nowhere.example.com:{port} was not found: name resolution failed after ");
    assert!(reasons[1].contains(&nowhere), "{reasons:?}");

    names.set_response(DnsResponse::Address([127, 0, 0, 1].into()));
    names.set_delay(Duration::from_millis(300));
    fixture.set_parameter("awsStsTimeoutMS", 10_000);
    go_to("late");
    let start = Instant::now();
    fixture.assert_still_serves("a late DNS");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
}
