//! Logins while some addresses of STS, or of the proxy, are dead; and the log lines when all are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use local_sts::{DelayProxy, Dns, DnsResponse, IdleDrop, NetworkFault, StsResponse};

use crate::support::fixture::Fixture;
use crate::support::proxy::TunnelProxy;
use crate::support::{self, dns};

/// What a login may take that has to connect while an address is dead; its timeout is ten seconds.
const SOON: Duration = Duration::from_secs(1);

/// A server that finds STS, or a proxy, by a name of several addresses.
struct Named {
    fixture: Fixture,
    names: Dns,
    _folder: tempfile::TempDir,
}

impl Named {
    fn start() -> Self {
        let names = Dns::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let fixture = Fixture::start_with(|builder| dns::asking(builder, &names, folder.path()));
        Self { fixture, names, _folder: folder }
    }

    /// Returns a proxy to STS at each of these addresses, all at one port.
    fn ways(&self, addresses: &[IpAddr]) -> Vec<DelayProxy> {
        // Another program may have the port at one of them.
        (0..20)
            .find_map(|_| {
                let first = DelayProxy::start_on((addresses[0], 0).into(), self.fixture.sts.address()).ok()?;
                let port = first.address().port();
                let start =
                    |address: &IpAddr| DelayProxy::start_on((*address, port).into(), self.fixture.sts.address());
                let others: Result<Vec<_>, _> = addresses[1..].iter().map(start).collect();
                Some(std::iter::once(first).chain(others.ok()?).collect())
            })
            .expect("a port that is free at all addresses")
    }

    /// Gives a name these addresses, and makes it STS's endpoint.
    fn go_to(&self, name: &str, ways: &[DelayProxy]) {
        self.names.set_response(DnsResponse::Addresses(ways.iter().map(|way| way.address().ip()).collect()));
        let port = ways[0].address().port();
        self.fixture.set_parameter("awsStsEndpoint", format!("https://{name}.example.com:{port}"));
    }

    fn login_soon(&self, what: &str) {
        let begun = Instant::now();
        self.fixture.login(&self.fixture.user).unwrap_or_else(|reply| panic!("{what}: {reply}"));
        assert!(begun.elapsed() < SOON, "{what}: {:?}", begun.elapsed());
    }
}

/// Closes each connection after its first response, so that every login has to open one.
const ONE_RESPONSE: NetworkFault = NetworkFault::DropIdle { after: Duration::ZERO, how: IdleDrop::Close };

/// Returns 127.0.0.N. The system's resolver sorts such addresses by the bits they share with
/// 127.0.0.1.
fn loopback(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

#[test]
fn a_dead_address_of_several_costs_no_login_a_second() {
    use NetworkFault::{BlackHole, Refused, Unreachable};
    let it = Named::start();
    let ipv6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    let (dead, good) = (loopback(2), loopback(3));
    for (name, addresses, fault) in [
        ("ipv6-drops-syn", &[ipv6, good][..], Unreachable),
        ("ipv6-is-silent", &[ipv6, good], BlackHole),
        ("first-drops-syn", &[dead, good], Unreachable),
        ("first-is-silent", &[dead, good], BlackHole),
        ("first-refuses", &[dead, good], Refused),
        ("three-drop-syn", &[dead, loopback(3), loopback(4), loopback(8)], Unreachable),
        ("three-are-silent", &[dead, loopback(3), loopback(4), loopback(8)], BlackHole),
    ] {
        if addresses[0].is_ipv6() && TcpListener::bind((ipv6, 0)).is_err() {
            support::skipped(name, "this machine has no IPv6");
            continue;
        }
        let ways = it.ways(addresses);
        let (good, dead) = ways.split_last().unwrap();
        good.set_fault(ONE_RESPONSE);
        dead.iter().for_each(|way| way.set_fault(fault));
        it.go_to(name, &ways);
        for login in 1..=4 {
            it.login_soon(name);
            assert_eq!(good.connection_count(), login, "{name}: a connection was kept, or none was made");
        }
        if fault == BlackHole {
            // The first login found them dead; those after it used the good one at once.
            let tried: Vec<_> = dead.iter().map(DelayProxy::connection_count).collect();
            assert!(tried.iter().all(|count| *count == 1), "{name}: {tried:?}");
        }
    }
    assert!(it.fixture.denial_reasons(0).is_empty());
    let section = it.fixture.mongod.run_as_admin("admin", bson::doc! { "serverStatus": 1 });
    let connections = section.get_document("awsIam").unwrap().get_document("sts").unwrap();
    let connections = connections.get_document("connections").unwrap();
    assert_eq!(connections.get_i64("opened").unwrap(), it.fixture.sts_counter("requests"), "{connections}");
    assert_eq!(connections.get_i64("reused").unwrap(), 0, "{connections}");
}

#[test]
fn an_address_that_worked_and_goes_silent_costs_one_login_a_moment() {
    let it = Named::start();
    let ways = it.ways(&[loopback(2), loopback(3)]);
    ways.iter().for_each(|way| way.set_fault(ONE_RESPONSE));
    it.go_to("both-work", &ways);
    it.login_soon("the start");
    it.login_soon("the first again");
    let counts = || [ways[0].connection_count(), ways[1].connection_count()];
    assert_eq!(counts(), [2, 0]);
    ways[0].set_fault(NetworkFault::BlackHole);
    it.login_soon("the first has gone silent");
    assert_eq!(counts(), [3, 1]);
    it.login_soon("the second is tried first");
    it.login_soon("the second is tried first");
    assert_eq!(counts(), [3, 3]);
    assert!(it.fixture.denial_reasons(0).is_empty());
}

#[test]
fn a_dead_address_of_the_proxy_costs_no_login_a_second() {
    let it = Named::start();
    // A proxy that accepts and sends nothing: what is missing is the response to CONNECT.
    let (silent, proxy) = (0..20)
        .find_map(|_| {
            let silent = TcpListener::bind((loopback(2), 0)).ok()?;
            let address = SocketAddr::from((loopback(3), silent.local_addr().ok()?.port()));
            Some((silent, TunnelProxy::start_on(address, None).ok()?))
        })
        .expect("a port that is free at both addresses");
    it.names.set_response(DnsResponse::Addresses(vec![loopback(2), loopback(3)]));
    let port = silent.local_addr().unwrap().port();
    let way = it.ways(&[loopback(1)]);
    way[0].set_fault(ONE_RESPONSE);
    it.fixture.set_parameter("awsStsEndpoint", way[0].endpoint());
    it.fixture.set_parameter("awsStsProxy", format!("http://proxy.example.com:{port}"));
    for _ in 0..3 {
        it.login_soon("a proxy of which one address is silent");
    }
    assert_eq!(proxy.requests().len(), 3);
    silent.set_nonblocking(true).unwrap();
    assert_eq!(silent.incoming().map_while(Result::ok).count(), 1, "the silent address was tried once");
}

/// An operator has to tell these apart by the log line alone.
#[test]
fn each_way_not_to_reach_sts_has_a_log_line_of_its_own() {
    let it = Named::start();
    it.fixture.set_parameter("awsStsTimeoutMS", 400);
    let sts = it.fixture.sts.address();
    let way = |fault| {
        let way = DelayProxy::start(sts).unwrap();
        way.set_fault(fault);
        way
    };
    let (dropped, silent) = (way(NetworkFault::Unreachable), way(NetworkFault::BlackHole));
    let fails = |count: usize, endpoint: &str, proxy: &str, expected: &str| {
        it.fixture.set_parameter("awsStsEndpoint", endpoint);
        it.fixture.set_parameter("awsStsProxy", proxy);
        it.fixture.login(&it.fixture.user).expect_err(expected);
        let reasons = it.fixture.denial_reasons(count);
        let reason = reasons[count - 1].rsplit_once("MONGODB-AWS: ").unwrap().1.to_owned();
        let reason = reason.split_once("; the client claimed").unwrap().0.to_owned();
        let pattern = regex_lite::Regex::new(r"[0-9]+ ms").unwrap();
        let took = pattern.find(&reason).expect("how long it took").as_str();
        let took: u64 = took.trim_end_matches(" ms").parse().unwrap();
        assert!(took <= 400, "{reason}");
        assert_eq!(pattern.replace_all(&reason, "N ms"), expected);
        took
    };
    let near = |took: u64| assert!(took > 300, "{took}");

    near(fails(
        1,
        &dropped.endpoint(),
        "",
        &format!(
            "cannot connect to sts.amazonaws.com ({}): the TCP connection timed out after N ms",
            dropped.address()
        ),
    ));
    near(fails(
        2,
        &silent.endpoint(),
        "",
        &format!("TLS handshake with sts.amazonaws.com ({}) timed out after N ms", silent.address()),
    ));
    near(fails(
        3,
        "https://sts.example.com",
        &format!("http://{}", silent.address()),
        &format!("CONNECT to the proxy {} timed out after N ms", silent.address()),
    ));
    it.names.set_response(DnsResponse::NoSuchName);
    fails(
        4,
        "",
        "http://proxy.example.com:3128",
        "the proxy proxy.example.com:3128 was not found: name resolution failed after N ms",
    );
    fails(
        5,
        "https://sts.example.com",
        "",
        "the endpoint sts.example.com:443 was not found: name resolution failed after N ms",
    );
    fails(
        6,
        "",
        "",
        "STS host sts.amazonaws.com was not found: name resolution failed after N ms; in a VPC without internet \
        access, set awsStsHost to the regional host, such as sts.eu-west-1.amazonaws.com: an STS interface endpoint answers \
        only for the regional name",
    );
    it.names.set_response(DnsResponse::Silence);
    near(fails(
        7,
        "https://slow.example.com",
        "",
        "name resolution of the endpoint slow.example.com:443 timed out after N ms",
    ));
    it.fixture.sts.set_response(StsResponse::Silence);
    near(fails(8, &it.fixture.sts.endpoint(), "", &format!("no response from sts.amazonaws.com ({sts}) within N ms")));
    it.fixture.sts.set_response(StsResponse::Verified);

    // Of several addresses, the line names one.
    let ways = it.ways(&[loopback(2), loopback(3)]);
    ways.iter().for_each(|way| way.set_fault(NetworkFault::BlackHole));
    it.go_to("two", &ways);
    let endpoint = format!("https://two.example.com:{}", ways[0].address().port());
    near(fails(
        9,
        &endpoint,
        "",
        &format!(
            "TLS handshake with sts.amazonaws.com ({}) timed out after N ms; 2 addresses were tried",
            ways[0].address()
        ),
    ));
    it.fixture.set_parameter("awsStsTimeoutMS", 10_000);
    it.fixture.set_parameter("awsStsEndpoint", it.fixture.sts.endpoint());
    it.fixture.assert_still_serves("all of these");
}
