//! Logins through an HTTP proxy to STS.

use crate::support::fixture::Fixture;
use crate::support::proxy::TunnelProxy;

#[test]
fn a_proxy_sees_only_the_host_and_port_of_sts() {
    // The proxy of the environment is not used.
    let fixture = Fixture::start_with(|builder| {
        builder.env("https_proxy", "http://127.0.0.1:9").env("HTTPS_PROXY", "http://127.0.0.1:9")
    });
    fixture.assert_still_serves("a proxy in the environment");
    let proxy = TunnelProxy::start(None);
    fixture.set_parameter("awsStsProxy", format!("http://{}", proxy.address));
    let connections = fixture.sts.connection_count();
    fixture.assert_still_serves("a proxy");
    fixture.assert_still_serves("a connection that was kept");
    let sts = fixture.sts.address();
    assert_eq!(proxy.requests(), [format!("CONNECT {sts} HTTP/1.1\r\nHost: {sts}\r\n\r\n")]);
    assert_eq!(fixture.sts.connection_count(), connections + 1);

    // The proxy resolves names.
    fixture.set_parameter("awsStsEndpoint", format!("https://sts.nowhere.example:{}", sts.port()));
    fixture.assert_still_serves("a name that only the proxy knows");
    fixture.set_parameter("awsStsProxy", "");
    fixture.set_parameter("awsStsTimeoutMS", 500);
    fixture.login(&fixture.user).expect_err("without the proxy the name cannot be resolved");
}

#[test]
fn a_proxy_that_makes_no_tunnel_denies_logins_and_the_log_says_why() {
    let fixture = Fixture::start();
    fixture.assert_still_serves("the start");
    fixture.set_parameter("awsStsTimeoutMS", 500);
    let identity =
        "<Arn>arn:aws:iam::123456789012:user/team/alice</Arn><UserId>A</UserId><Account>123456789012</Account>";
    let posing_as_sts: &str = Box::leak(
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n<GetCallerIdentityResponse><GetCallerIdentityResult>\
             {identity}</GetCallerIdentityResult></GetCallerIdentityResponse>"
        )
        .into_boxed_str(),
    );
    let cases = [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", " answered 407 to CONNECT, after "),
        ("HTTP/1.1 503 Service Unavailable\r\nX: \x1b[31m\r\n\r\n", " answered 503 to CONNECT, after "),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", " sent a response that is not HTTP, after "),
        ("", ": the connection was closed"),
        // A response instead of a tunnel: what follows is not TLS.
        (posing_as_sts, "TLS handshake with sts.amazonaws.com through the proxy 127.0.0.1:"),
    ];
    for (count, (response, reason)) in cases.into_iter().enumerate() {
        let proxy = TunnelProxy::start(Some(response));
        fixture.set_parameter("awsStsProxy", format!("http://{}", proxy.address));
        let asked = fixture.sts.request_count();
        fixture.login(&fixture.user).expect_err(reason);
        let reasons = fixture.denial_reasons(count + 1);
        assert!(reasons[count].contains(reason), "{reason}: {}", reasons[count]);
        assert!(reasons[count].contains(&format!("the proxy {}", proxy.address)), "{reason}: {}", reasons[count]);
        assert_eq!(fixture.sts.request_count(), asked, "{reason}");
    }
    fixture.set_parameter("awsStsProxy", "");
    fixture.assert_still_serves("proxies that make no tunnel");
}
