//! The steps of users-and-roles.md for leaked credentials, for a session that STS still confirms.

use std::thread;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::error::Result;
use mongodb::sync::Client;

use super::shell::{command, statements};
use super::{examples, section};
use crate::support::fixture::{Fixture, ROLE_USER_NAME, assert_plain_denial};

const LIMIT: Duration = Duration::from_secs(30);

/// Returns the statements of the section, for the user of the fixture's role.
fn steps() -> [(String, Document); 4] {
    let below = section("docs/users-and-roles.md", "When credentials leak");
    let blocks = examples("js", "").into_iter().filter(|block| below(block));
    let statements: Vec<_> = blocks.flat_map(|block| statements(&block.text)).collect();
    let of_role =
        |code: &str| command(&code.replace("arn:aws:iam::123456789012:role/shop", ROLE_USER_NAME)).expect("a command");
    statements.iter().map(|statement| of_role(&statement.code)).collect::<Vec<_>>().try_into().expect("four steps")
}

fn find(client: &Client, filter: Document) -> Result<Option<Document>> {
    client.database("shop").collection("orders").find_one(filter).run()
}

#[test]
fn a_leaked_session_is_locked_out_by_the_steps_of_the_page() {
    let fixture = Fixture::start();
    let mongod = &fixture.mongod;
    let run = |(database, command): &(String, Document)| mongod.run_as_admin(database, command.clone());
    let [see, lock, end, unlock] = steps();
    mongod.run_as_admin("shop", doc! { "insert": "orders", "documents": [{ "number": 1 }] });
    let (idle, busy) = (fixture.driver(&fixture.role), fixture.driver(&fixture.role));
    for client in [&idle, &busy] {
        find(client, doc! {}).expect("the role may read");
    }
    let running = thread::spawn(move || find(&busy, doc! { "$where": "sleep(30000) || true" }));

    let seen = |active: bool| {
        let reply = run(&see);
        let connections = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap().clone();
        let connections = connections.iter().map(|it| it.as_document().unwrap());
        let is_like = |it: &Document| it.get_str("client").is_ok() && it.get_bool("active").unwrap() == active;
        connections.filter(|it| is_like(it)).count()
    };
    let until = Instant::now() + LIMIT;
    while seen(true) == 0 {
        assert!(Instant::now() < until, "the operation is not shown");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(seen(false) > 0, "the idle connection is not shown");

    run(&lock);
    find(&idle, doc! {}).expect_err("its connection is logged out");
    assert_plain_denial("the stolen session", &fixture.login(&fixture.role).expect_err("127.0.0.1 is not allowed"));
    assert_eq!(seen(true), 1, "the operation that had begun goes on");
    run(&end);
    running.join().unwrap().expect_err("it was ended");
    run(&unlock);
    fixture.login(&fixture.role).expect("STS still confirms the session");

    // Connections from allowed addresses are not affected.
    let application = fixture.driver(&fixture.role);
    find(&application, doc! {}).unwrap();
    let here = doc! { "clientSource": ["127.0.0.0/8"] };
    mongod.run_as_admin("$external", doc! { "updateUser": ROLE_USER_NAME, "authenticationRestrictions": [here] });
    find(&application, doc! {}).expect("its connection stays logged in");

    // Only new logins are refused for their account.
    fixture.set_parameter("awsIamAllowedAccounts", "210987654321");
    fixture.login(&fixture.role).expect_err("the account is not listed");
    run(&end);
    find(&application, doc! {}).expect("open connections stay");

    // Sessions of a dropped user cannot be found by name.
    mongod.run_as_admin("$external", doc! { "dropUser": ROLE_USER_NAME });
    find(&application, doc! {}).expect_err("its connection is logged out");
    let (database, command) = end;
    assert!(mongod.try_as_admin(&database, command).is_err());
}
