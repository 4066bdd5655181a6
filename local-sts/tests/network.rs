//! The proxy that simulates a network.

mod support;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use local_sts::{DelayProxy, Identity, IdleDrop, LocalSts, NetworkFault, Stage};
use support::{ACCOUNT, Client, Request};

const ROUND_TRIP: Duration = Duration::from_millis(40);
/// What a busy machine may add to a few round trips.
const SLACK: Duration = Duration::from_millis(500);
/// Long enough to conclude that nothing arrives.
const A_WHILE: Duration = Duration::from_millis(150);

struct World {
    sts: LocalSts,
    network: DelayProxy,
    alice: Identity,
}

impl World {
    fn new() -> Self {
        let alice = Identity::iam_user(ACCOUNT, "alice");
        let sts = LocalSts::builder().identity(alice.clone()).start().unwrap();
        let network = DelayProxy::start(sts.address()).unwrap();
        Self { sts, network, alice }
    }

    fn dial(&self) -> io::Result<Client> {
        Client::dial(self.network.address(), self.sts.ca_pem(), "sts.amazonaws.com")
    }

    /// Returns a connection that has carried a response.
    fn warm(&self) -> Client {
        let mut client = self.dial().unwrap();
        self.ask(&mut client).unwrap();
        client
    }

    fn ask(&self, client: &mut Client) -> io::Result<()> {
        let response = client.try_send(&Request::signed_by(&self.alice))?;
        assert_eq!(response.status, 200, "{response:?}");
        Ok(())
    }

    /// Asserts that a new client is served: the fault is over.
    fn assert_serves(&self) {
        self.ask(&mut self.dial().unwrap()).unwrap();
    }
}

fn assert_reset(result: io::Result<()>) {
    let kind = result.unwrap_err().kind();
    assert!(matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{kind:?}");
}

fn assert_silent(result: io::Result<()>) {
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_connection_costs_its_round_trips_and_a_request_one() {
    let world = World::new();
    let request = Request::signed_by(&world.alice);
    world.network.set_round_trip(ROUND_TRIP);
    let start = Instant::now();
    let mut client = world.dial().unwrap();
    let connected = start.elapsed();
    // TCP and TLS 1.3: one each. The end of the handshake travels with the request.
    assert!(connected >= 2 * ROUND_TRIP && connected < 2 * ROUND_TRIP + SLACK, "{connected:?}");
    let start = Instant::now();
    client.send(&request);
    let took = start.elapsed();
    assert!(took >= ROUND_TRIP && took < ROUND_TRIP + SLACK, "{took:?}");

    world.network.set_round_trip(Duration::ZERO);
    let times = (0..20).map(|_| {
        let start = Instant::now();
        client.send(&request);
        start.elapsed()
    });
    assert!(times.min().unwrap() < ROUND_TRIP, "the delay is still there");
}

#[test]
fn a_round_trip_limits_no_throughput_and_keeps_the_order() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let network = DelayProxy::start(listener.local_addr().unwrap()).unwrap();
    network.set_round_trip(2 * ROUND_TRIP);
    let receiver = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        socket.read_to_end(&mut received).unwrap();
        socket.write_all(b"all there").unwrap();
        received
    });
    let sent: Vec<u8> = (0..4_000_000_u32).flat_map(|n| [n as u8, (n >> 8) as u8]).collect();
    let mut socket = TcpStream::connect(network.address()).unwrap();
    let start = Instant::now();
    // In 800 pieces, whose delays must not add up: that would take a minute.
    for piece in sent.chunks(10_000) {
        socket.write_all(piece).unwrap();
    }
    socket.shutdown(Shutdown::Write).unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).unwrap();
    let took = start.elapsed();
    assert_eq!(response, "all there");
    assert!(receiver.join().unwrap() == sent, "not what was sent");
    assert!(took >= 4 * ROUND_TRIP && took < Duration::from_secs(5), "{took:?}");
    drop(socket);
    wait_for("the ended connection is closed", || network.open_connections() == 0);
}

#[test]
fn many_connections_at_once_are_delayed_alike() {
    const CONNECTIONS: u8 = 255;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let network = DelayProxy::start(listener.local_addr().unwrap()).unwrap();
    network.set_round_trip(ROUND_TRIP);
    let server = thread::spawn(move || {
        let sockets: Vec<TcpStream> = (0..CONNECTIONS).map(|_| listener.accept().unwrap().0).collect();
        for mut socket in &sockets {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            socket.write_all(&byte).unwrap();
        }
    });
    let start = Instant::now();
    let sockets: Vec<TcpStream> = (0..CONNECTIONS).map(|_| TcpStream::connect(network.address()).unwrap()).collect();
    for (n, mut socket) in (0..CONNECTIONS).zip(&sockets) {
        socket.write_all(&[n]).unwrap();
    }
    for (n, mut socket) in (0..CONNECTIONS).zip(&sockets) {
        let mut byte = [0];
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [n]);
    }
    let took = start.elapsed();
    assert!(took >= 2 * ROUND_TRIP && took < 2 * ROUND_TRIP + Duration::from_secs(3), "{took:?}");
    assert_eq!(network.connection_count(), usize::from(CONNECTIONS));
    server.join().unwrap();
}

#[test]
fn nothing_passes_a_black_hole_until_it_is_over() {
    let world = World::new();
    let mut client = world.warm();
    world.network.set_fault(NetworkFault::BlackHole);
    client.set_read_timeout(A_WHILE);
    assert_silent(world.ask(&mut client));
    assert_eq!(world.sts.request_count(), 1);
    let mut newcomer = TcpStream::connect(world.network.address()).unwrap();
    newcomer.write_all(b"anybody?").unwrap();
    newcomer.set_read_timeout(Some(A_WHILE)).unwrap();
    assert_silent(newcomer.read(&mut [0]).map(|_| ()));

    world.network.set_fault(NetworkFault::None);
    client.set_read_timeout(Duration::from_secs(5));
    assert_eq!(client.read_response().status, 200);
    world.assert_serves();
}

#[test]
fn connecting_to_an_unreachable_host_gets_no_reply() {
    let world = World::new();
    let mut client = world.warm();
    world.network.set_fault(NetworkFault::Unreachable);
    wait_for("connect times out", || {
        TcpStream::connect_timeout(&world.network.address(), A_WHILE)
            .is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    });
    client.set_read_timeout(A_WHILE);
    assert_silent(world.ask(&mut client));
    world.network.set_fault(NetworkFault::None);
    wait_for("connections are accepted again", || world.dial().is_ok());
    world.assert_serves();
}

#[test]
fn a_refused_connection_fails_at_once() {
    let world = World::new();
    let mut client = world.warm();
    world.network.set_fault(NetworkFault::Refused);
    wait_for("a refusal", || {
        TcpStream::connect(world.network.address()).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    });
    world.ask(&mut client).unwrap();
    world.network.set_fault(NetworkFault::None);
    wait_for("connections are accepted again", || world.dial().is_ok());
}

#[test]
fn connections_are_reset_at_each_stage_with_and_without_latency() {
    for round_trip in [Duration::ZERO, Duration::from_millis(5)] {
        let world = World::new();
        world.network.set_round_trip(round_trip);
        for (stage, requests) in
            [(Stage::Accepted, 0), (Stage::ClientHello, 0), (Stage::BeforeRequest, 0), (Stage::BeforeResponse, 1)]
        {
            world.network.set_fault_times(NetworkFault::Reset(stage), 1);
            assert_reset(world.dial().and_then(|mut client| world.ask(&mut client)));
            assert_eq!(world.sts.request_count(), requests, "{stage:?}");
            assert_eq!(world.network.fault(), NetworkFault::None, "it was set for one connection");
        }
        world.assert_serves();

        // Also on connections that were used before.
        for (stage, requests) in [(Stage::BeforeRequest, 3), (Stage::BeforeResponse, 5)] {
            let mut client = world.warm();
            world.network.set_fault_times(NetworkFault::Reset(stage), 1);
            assert_reset(world.ask(&mut client));
            assert_eq!(world.sts.request_count(), requests, "{stage:?}");
        }
        assert_eq!(world.network.hit_count(), 6);
        wait_for("all connections are closed", || world.network.open_connections() == 0);
    }
}

#[test]
fn a_response_is_cut_or_reset_after_some_bytes() {
    let world = World::new();
    world.network.set_fault(NetworkFault::CutResponse { after: 100 });
    let mut client = world.dial().unwrap();
    let error = world.ask(&mut client).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    drop(client);
    world.network.set_fault(NetworkFault::ResetInResponse { after: 100 });
    assert_reset(world.dial().and_then(|mut client| world.ask(&mut client)));
    assert_eq!(world.sts.request_count(), 2);
    // Longer than any response: none is cut.
    world.network.set_fault(NetworkFault::CutResponse { after: 100_000 });
    let mut client = world.warm();
    world.ask(&mut client).unwrap();
    drop(client);
    wait_for("all connections are closed", || world.network.open_connections() == 0);
}

#[test]
fn a_response_drips() {
    let world = World::new();
    let mut client = world.warm();
    world.network.set_fault(NetworkFault::Drip { every: Duration::from_micros(200) });
    let start = Instant::now();
    world.ask(&mut client).unwrap();
    // More than 400 bytes.
    assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
    world.network.set_fault(NetworkFault::Drip { every: Duration::from_secs(3600) });
    client.set_read_timeout(A_WHILE);
    assert_silent(world.ask(&mut client));
    world.network.set_fault(NetworkFault::None);
    client.set_read_timeout(Duration::from_secs(5));
    assert_eq!(client.read_response().status, 200);
}

#[test]
fn idle_connections_are_dropped_in_three_ways_and_new_ones_work() {
    let world = World::new();
    let idle = Duration::from_millis(100);
    for how in [IdleDrop::Close, IdleDrop::Reset, IdleDrop::BlackHole] {
        let mut client = world.warm();
        world.network.set_fault(NetworkFault::DropIdle { after: idle, how });
        thread::sleep(2 * idle);
        client.set_read_timeout(A_WHILE);
        let asked = world.sts.request_count();
        let result = world.ask(&mut client);
        match how {
            IdleDrop::Close => assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
            IdleDrop::Reset => assert_reset(result),
            _ => assert_silent(result),
        }
        assert_eq!(world.sts.request_count(), asked, "{how:?}");
        world.assert_serves();
        world.network.set_fault(NetworkFault::None);
    }
    assert!((3..=4).contains(&world.network.hit_count()), "{}", world.network.hit_count());
}

#[test]
fn a_server_that_stops_or_does_not_exist_costs_the_client_its_connection() {
    let World { sts, network, alice } = World::new();
    let mut client = Client::dial(network.address(), sts.ca_pem(), "sts.amazonaws.com").unwrap();
    client.send(&Request::signed_by(&alice));
    drop(sts);
    assert!(client.try_send(&Request::signed_by(&alice)).is_err());
    let mut socket = TcpStream::connect(network.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_reset(socket.read(&mut [0]).map(|_| ()));
    drop(client);
    wait_for("all connections are closed", || network.open_connections() == 0);
}

#[test]
fn only_loopback_is_served_and_a_drop_closes_everything() {
    let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 443));
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    for result in [DelayProxy::start(elsewhere), DelayProxy::start_on(elsewhere, here)] {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    let World { sts, network, alice } = World::new();
    let mut client = Client::dial(network.address(), sts.ca_pem(), "sts.amazonaws.com").unwrap();
    network.set_round_trip(Duration::from_secs(3600));
    let start = Instant::now();
    drop(network);
    assert!(client.try_send(&Request::signed_by(&alice)).is_err());
    assert!(start.elapsed() < Duration::from_secs(5));
}
