//! Denial of service: strangers who hold as many connections as they can, with messages that only
//! STS can refuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use local_sts::{Identity, LocalSts};

use crate::support::aws_client::{Conversation, Credentials, client_second};
use crate::support::fixture::{ACCOUNT, AUTHENTICATION_FAILED, Fixture, credentials};
use crate::support::process;
use crate::support::wire::sasl_continue;

const STRANGERS: usize = 500;
/// Each holds its part of the strangers' connections.
const THREADS: usize = 5;
/// As src/sts/gate/mod.rs has it.
const LANE_WIDTH: usize = 64;
/// How long this STS thinks about a bad signature. The crowd of them takes it seven times as long.
const THOUGHT: Duration = Duration::from_millis(200);

/// How many refusals STS was at work on, and how many were ever at once.
#[derive(Default)]
struct Refusals {
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Refusals {
    fn take_time(&self) {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        thread::sleep(THOUGHT);
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn five_hundred_strangers_hold_their_share_of_sts_and_no_more() {
    let fixture = Fixture::start();
    let refusals = Arc::new(Refusals::default());
    let newcomers: Vec<Identity> =
        (0..5).map(|n| Identity::assumed_role(ACCOUNT, "reporting", &format!("n{n}"))).collect();
    let slow = slow_to_refuse(&fixture, &newcomers, &refusals);
    fixture.trust(&[&slow]);
    fixture.set_parameter("awsStsEndpoint", slow.endpoint());
    // One who has logged in before.
    fixture.assert_still_serves("the start");
    let threads_before = process::threads(fixture.mongod.pid());
    let (stop, waiting) = (AtomicBool::new(false), AtomicUsize::new(0));

    thread::scope(|scope| {
        let (fixture, stop, waiting) = (&fixture, &stop, &waiting);
        let spawn = |part| scope.spawn(move || besiege(fixture, STRANGERS / THREADS, part, waiting, stop));
        let crowd: Vec<_> = (0..THREADS).map(spawn).collect();
        // However the test ends, the crowd goes home.
        let _at_end = StopAtEnd(stop);
        let until = Instant::now() + Duration::from_secs(20);
        while waiting.load(Ordering::SeqCst) < STRANGERS || refusals.under_way.load(Ordering::SeqCst) < LANE_WIDTH {
            assert!(Instant::now() < until, "the strangers never filled their lane");
            thread::sleep(Duration::from_millis(5));
        }
        let threads = process::threads(fixture.mongod.pid()) - threads_before;
        assert!(threads <= STRANGERS + 16, "{threads} threads more: the plugin has made its own");

        // Who is new waits for a turn among them, and gets it.
        let newcomers: Vec<_> = newcomers.iter().map(|newcomer| scope.spawn(move || time(fixture, newcomer))).collect();
        // Who has logged in before does not wait in their queue.
        let mut known: Vec<_> = (0..15).map(|_| time(fixture, &fixture.user)).collect();
        let mut unknown: Vec<_> = newcomers.into_iter().map(|thread| thread.join().expect("a login")).collect();
        known.sort_unstable();
        unknown.sort_unstable();
        let (known, unknown) = (known[known.len() / 2], unknown[unknown.len() / 2]);
        assert!(known < unknown, "a login of a known caller took {known:?}, one of a newcomer {unknown:?}");
        stop.store(true, Ordering::SeqCst);
        let refused: usize = crowd.into_iter().map(|thread| thread.join().expect("no reply is odd")).sum();
        assert!(refused >= STRANGERS, "{refused} refusals");
    });

    let most = refusals.most.load(Ordering::SeqCst);
    assert_eq!(most, LANE_WIDTH, "strangers had {most} questions under way at once");
    fixture.assert_still_serves("the siege");
}

/// A key of any account of AWS is confirmed by STS. Without a user here, it stays among the
/// strangers.
#[test]
fn strangers_whom_sts_confirms_are_no_known_callers() {
    let fixture = Fixture::start();
    if fixture.mongod.version().starts_with("4.4") {
        // It does not report which logins have succeeded.
        return;
    }
    let strangers = Arc::new(Refusals::default());
    let stranger = Identity::iam_user("666666666666", "mallory");
    let slow = slow_for_all_but(&fixture.user, &stranger, &strangers);
    fixture.trust(&[&slow]);
    fixture.set_parameter("awsStsEndpoint", slow.endpoint());
    fixture.assert_still_serves("the start");
    let reply = fixture.login(&stranger).expect_err("there is no such user");
    assert_ne!(reply.get_i32("code").unwrap(), AUTHENTICATION_FAILED, "STS did not confirm the stranger: {reply}");

    // Half of them with the key that STS has confirmed: a lane of their own would double what is
    // under way at once.
    let mut crowd: Vec<_> = (0..4 * LANE_WIDTH)
        .map(|n| {
            let unknown = Credentials::new(&format!("AKIAX{n}"), "no-secret");
            let credentials = if n % 2 == 0 { credentials(&stranger) } else { unknown };
            let mut conversation = Conversation::start(fixture.mongod.port()).expect("a challenge");
            let message = client_second(&conversation.signer(&credentials).sign());
            let command = sasl_continue(&conversation.conversation_id, &message);
            conversation.client.send("$external", command).expect("it is sent");
            conversation
        })
        .collect();
    for conversation in &mut crowd {
        let reply = conversation.client.receive().expect("a reply");
        assert_eq!(reply.get_f64("ok").unwrap(), 0.0, "{reply}");
    }
    assert_eq!(strangers.most.load(Ordering::SeqCst), LANE_WIDTH, "strangers had another share of STS");
    fixture.assert_still_serves("the crowd");
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// An STS that knows the fixture's user and the newcomers at once, and takes its time to refuse
/// anybody.
fn slow_to_refuse(fixture: &Fixture, newcomers: &[Identity], refusals: &Arc<Refusals>) -> LocalSts {
    let refusals = Arc::clone(refusals);
    let builder = newcomers.iter().fold(LocalSts::builder(), |builder, newcomer| builder.identity(newcomer.clone()));
    builder
        .identity(fixture.user.clone())
        .observer(move |outcome| {
            if outcome.error_code.is_some() {
                refusals.take_time();
            }
        })
        .start()
        .expect("an STS")
}

/// An STS that answers the user at once, and takes its time for the stranger and for anybody it
/// refuses.
fn slow_for_all_but(user: &Identity, stranger: &Identity, strangers: &Arc<Refusals>) -> LocalSts {
    let (strangers, fast) = (Arc::clone(strangers), user.access_key_id.clone());
    LocalSts::builder()
        .identity(user.clone())
        .identity(stranger.clone())
        .observer(move |outcome| {
            if outcome.access_key_id.as_ref() != Some(&fast) {
                strangers.take_time();
            }
        })
        .start()
        .expect("an STS")
}

/// How long a login takes.
fn time(fixture: &Fixture, identity: &Identity) -> Duration {
    let begun = Instant::now();
    fixture.login(identity).unwrap_or_else(|reply| panic!("{}: {reply}", identity.arn));
    begun.elapsed()
}

/// Holds so many connections, each with a login that only STS can refuse, over and over; returns
/// how many were refused.
fn besiege(fixture: &Fixture, connections: usize, part: usize, waiting: &AtomicUsize, stop: &AtomicBool) -> usize {
    let mut refused = 0;
    while !stop.load(Ordering::SeqCst) {
        let mut conversations: Vec<_> = (0..connections)
            .map(|n| {
                let mut conversation = Conversation::start(fixture.mongod.port()).expect("a challenge");
                // A key that nobody has, another one each time.
                let stranger = Credentials::new(&format!("AKIA{part}X{n}X{refused}"), "no-secret");
                let message = client_second(&conversation.signer(&stranger).sign());
                let command = sasl_continue(&conversation.conversation_id, &message);
                conversation.client.send("$external", command).expect("it is sent");
                waiting.fetch_add(1, Ordering::SeqCst);
                conversation
            })
            .collect();
        for conversation in &mut conversations {
            let reply = conversation.client.receive().expect("a reply");
            assert_eq!(reply.get_i32("code").unwrap(), AUTHENTICATION_FAILED, "{reply}");
            refused += 1;
        }
    }
    refused
}
