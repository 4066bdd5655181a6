#!/usr/bin/env python3
"""Logs in to a real mongod with PyMongo and AWS IAM identities, step by step: `make demo`.

Nothing leaves this machine: local-sts replaces AWS STS, and all credentials are random. Exit status: 0 if all checks
passed, 1 if one failed, 130 if interrupted.
"""

import contextlib
import json
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import tempfile
from datetime import timedelta

from pymongo.errors import PyMongoError

from clients import (
    ACCOUNT,
    aws_environment,
    client,
    details_of,
    forget_own_credentials,
    identity,
    in_one_line,
    log_in,
    log_in_from_environment,
    session,
)
from screen import Screen
from servers import LocalSts, Mongod, ServerError

ROOT = pathlib.Path(__file__).resolve().parent.parent
MONGOD_VERSION = "6.0.5"
STS_HOST = "sts.amazonaws.com"

ALICE = f"arn:aws:iam::{ACCOUNT}:user/team/alice"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reporting"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/reporting/i-0demo"
STRANGER = f"arn:aws:iam::{ACCOUNT}:user/stranger"

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# The server's error codes.
USER_NOT_FOUND = 11
UNAUTHORIZED = 13
AUTHENTICATION_FAILED = 18

# The server's log entries "Authentication failed" and "Authentication succeeded".
LOGIN_FAILED = 20249
LOGIN_SUCCEEDED = 20250


class Demo:
    def __init__(self, screen, folder):
        self.screen = screen
        self.folder = pathlib.Path(folder)
        self.servers = []
        self.alice = identity(ALICE)
        self.reporting = session(SESSION, timedelta(hours=1))
        self.expired = session(f"arn:aws:sts::{ACCOUNT}:assumed-role/reporting/i-0old", -timedelta(hours=1))
        self.stranger = identity(STRANGER)
        self.admin_password = secrets.token_urlsafe(24)

    def run(self, stack):
        sts = self.start_sts(stack)
        mongod = self.start_mongod(stack, sts)
        self.create_users(mongod)
        self.alice_works(mongod)
        self.role_reports(mongod)
        self.others_are_refused(mongod)
        self.alice_logs_in_again(mongod)
        self.operator_looks_at_the_status(mongod)
        self.operator_uses_the_command(mongod)
        self.logs_keep_secrets(mongod, sts)

    def start_sts(self, stack):
        self.screen.step("Start local-sts, which replaces AWS STS and verifies every signature")
        known = [self.alice, self.reporting, self.expired, self.stranger]
        sts = LocalSts(self.folder / "local-sts", built("local-sts"), known)
        self.servers.append(sts)
        stack.enter_context(sts)
        self.screen.say(f"It answers as {STS_HOST} at {sts.endpoint} and knows {len(known)} random access keys.")
        return sts

    def start_mongod(self, stack, sts):
        plugin = built("libpsmdb_aws_iam.so")
        self.screen.step(f"Start a stock mongod {MONGOD_VERSION} with the plugin preloaded")
        parameters = {
            "authenticationMechanisms": "MONGODB-AWS,SCRAM-SHA-256",
            "awsStsHost": STS_HOST,
            "awsStsEndpoint": sts.endpoint,
            "awsStsCAFile": sts.ca_file,
        }
        mongod = Mongod(self.folder / "mongod", *fetched_mongod(), plugin, parameters)
        self.servers.append(mongod)
        stack.enter_context(mongod)
        self.screen.say(f"LD_PRELOAD={shortened(plugin)} mongod --config mongod.conf, where mongod.conf is:")
        self.screen.block(mongod.config.read_text(encoding="utf-8"))
        entry = mongod.wait_for_log(lambda entry: entry.get("id") == 88000001)
        self.screen.check("mongod offers MONGODB-AWS", entry, entry["msg"] if entry else "no such log line")
        return mongod

    def create_users(self, mongod):
        self.screen.step("Create a MongoDB user for each IAM principal, in $external")
        with client(mongod.port) as localhost:
            localhost.admin.command(
                "createUser", "admin", pwd=self.admin_password, roles=["root"], mechanisms=["SCRAM-SHA-256"]
            )
        self.screen.say("Through the localhost exception: the user admin, who then creates (as in mongosh):")
        with client(mongod.port, username="admin", password=self.admin_password) as admin:
            for arn, role in ((ALICE, "readWrite"), (ROLE, "read")):
                admin["$external"].command("createUser", arn, roles=[{"role": role, "db": "shop"}])
                self.screen.block('db.getSiblingDB("$external").createUser({')
                self.screen.block(f'    user: "{arn}",')
                self.screen.block(f'    roles: [{{ role: "{role}", db: "shop" }}] }})')

    def alice_works(self, mongod):
        self.screen.step("Log in as alice, an IAM user, with her access key")
        self.screen.block("MongoClient(host, username=<access key id>, password=<secret access key>,")
        self.screen.block('    authSource="$external", authMechanism="MONGODB-AWS")')
        with log_in(mongod.port, self.alice) as alice:
            if self.identity_is("alice", alice, ALICE, "readWrite on shop"):
                shop = alice.shop
                self.may("alice may insert into shop.orders", lambda: shop.orders.insert_one({"item": "ink", "n": 3}))
                self.may("alice may read shop.orders", shop.orders.find_one)
                self.may_not("alice may not read admin", lambda: alice.admin["system.users"].find_one())

    def role_reports(self, mongod):
        self.screen.step("Log in as a session of the role reporting, with credentials from the environment")
        position = mongod.log_position()
        self.screen.block("AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_SESSION_TOKEN=…")
        self.screen.block('MongoClient(host, authSource="$external", authMechanism="MONGODB-AWS")')
        with aws_environment(self.reporting), log_in_from_environment(mongod.port) as reporting:
            if self.identity_is("the role", reporting, ROLE, "read on shop"):
                entry = mongod.wait_for_log(lambda entry: entry.get("id") == LOGIN_SUCCEEDED, position)
                arn = entry["attr"]["extraInfo"].get("awsArn", "none") if entry else "none"
                self.screen.check("mongod's log contains the session's ARN", arn == SESSION, arn)
                orders = reporting.shop.orders
                self.may("the role may read shop.orders", orders.find_one)
                self.may_not("the role may not insert into shop.orders", lambda: orders.insert_one({"item": "pen"}))
                self.may_not("the role may not read admin", lambda: reporting.admin["system.users"].find_one())
        with log_in(mongod.port, self.reporting) as explicit:
            self.identity_is("the role, its token in authMechanismProperties,", explicit, ROLE, "read on shop")

    def others_are_refused(self, mongod):
        self.screen.step("Logins without a valid identity, or without a MongoDB user, are denied")
        self.screen.say("The client sees only a generic error; mongod's log contains the reason.")
        wrong_secret = {**self.alice, "secret_access_key": identity(ALICE)["secret_access_key"]}
        self.refused(mongod, "alice's access key id with a wrong secret key", wrong_secret, "SignatureDoesNotMatch")
        self.refused(mongod, "an access key that STS does not know", identity(ALICE), "InvalidClientTokenId")
        self.refused(mongod, "a session of the role that has expired", self.expired, "ExpiredToken")
        self.refused_without_user(mongod)

    def alice_logs_in_again(self, mongod):
        self.screen.step("Log in as alice again")
        with log_in(mongod.port, self.alice) as alice:
            if self.identity_is("alice, again,", alice, ALICE, "readWrite on shop"):
                self.may("alice finds her order", lambda: alice.shop.orders.find_one({"item": "ink"}))

    def operator_looks_at_the_status(self, mongod):
        self.screen.step("Show db.serverStatus().awsIam")
        with client(mongod.port, username="admin", password=self.admin_password) as admin:
            status = admin.admin.command("serverStatus")["awsIam"]
        logins, sts = status["logins"], status["sts"]
        refused = {reason: count for reason, count in logins["reasons"].items() if count}
        expected = {"unknownKey": 1, "wrongSignature": 1, "expiredToken": 1}
        self.screen.check("each denied login is counted by its reason", refused == expected, json.dumps(refused))
        self.screen.field("logins", f"{logins['started']} started, {logins['confirmed']} confirmed by STS")
        connections = sts["connections"]
        self.screen.field("STS", f"{status['stsHost']}, {sts['requests']} requests")
        self.screen.field("connections", f"{connections['opened']} opened, {connections['reused']} reused")
        took = status["latency"]["sts"]
        self.screen.field("responses", f"{took['count']}, {took['atMost50ms']} of them within 50 ms")

    def operator_uses_the_command(self, mongod):
        self.screen.step("Run the command psmdb-aws-iam")
        role_in_aws = ROLE.replace("role/", "role/apps/")
        self.command_says("the user name for a role", 0, ROLE, "user", role_in_aws)
        place = f"127.0.0.1:{mongod.port}"
        self.command_says("alice can log in", 0, ALICE, "login", place, identity=self.alice)
        self.command_says("a stranger cannot, with the reason", 1, STRANGER, "login", place, identity=self.stranger)

    def command_says(self, title, exit_status, words, *arguments, identity=None):
        environment = {"PATH": os.environ.get("PATH", "")}
        if identity:
            environment["AWS_ACCESS_KEY_ID"] = identity["access_key_id"]
            environment["AWS_SECRET_ACCESS_KEY"] = identity["secret_access_key"]
        command = [str(built("psmdb-aws-iam")), *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        self.screen.block(f"psmdb-aws-iam {' '.join(arguments)}")
        said = ran.stdout + ran.stderr
        self.screen.check(title, ran.returncode == exit_status and words in said)
        self.screen.block(said.rstrip())

    def logs_keep_secrets(self, mongod, sts):
        self.screen.step("Search the servers' logs for secret access keys and session tokens")
        credentials = [self.alice, self.reporting, self.expired, self.stranger]
        planted = [one[field] for one in credentials for field in ("secret_access_key", "session_token") if field in one]
        text = "".join(server.text_of(file) for server in (mongod, sts) for file in server.log_files)
        found = sum(secret in text for secret in planted)
        self.screen.check("no secret and no token in the servers' logs", not found, f"{found} of {len(planted)} found")

    # --- Expectations.

    def identity_is(self, who, connection, expected_user, expected_role):
        """Logs in and checks the connection's user and roles; returns whether the login succeeded."""
        try:
            seen = connection.admin.command("connectionStatus")["authInfo"]
        except PyMongoError as error:
            self.screen.check(f"{who} logs in", False, in_one_line(error))
            return False
        users = [f"{user['user']} in {user['db']}" for user in seen["authenticatedUsers"]]
        roles = [f"{role['role']} on {role['db']}" for role in seen["authenticatedUserRoles"]]
        expected = users == [f"{expected_user} in $external"] and roles == [expected_role]
        self.screen.check(f"{who} logs in", expected)
        self.screen.field("user", ", ".join(users) or "none")
        self.screen.field("roles", ", ".join(roles) or "none")
        return True

    def may(self, title, action):
        try:
            done = action()
        except PyMongoError as error:
            self.screen.check(title, False, in_one_line(error))
        else:
            self.screen.check(title, done is not None, "" if done is not None else "no document found")

    def may_not(self, title, action):
        refusal = None
        try:
            action()
        except PyMongoError as error:
            refusal = error
        self.screen.check(title, details_of(refusal).get("code") == UNAUTHORIZED, in_one_line(refusal))

    def refused(self, mongod, who, credentials, reason):
        """Expects a login to fail, with REASON in the server's log only."""
        position = mongod.log_position()
        error = self.login_error(mongod, credentials)
        entry = mongod.wait_for_log(lambda entry: entry.get("id") == LOGIN_FAILED, position)
        logged = f"{entry['msg']}: {entry['attr'].get('error')}" if entry else "nothing"
        told = details_of(error)
        generic = told.get("code") == AUTHENTICATION_FAILED and told.get("errmsg") == "Authentication failed."
        self.screen.check(f"denied: {who}", generic and reason in logged)
        self.screen.field("client", in_one_line(error))
        self.screen.field("mongod's log", logged)

    def refused_without_user(self, mongod):
        """STS confirms the client, but the server finds no user; the client sees its name in the error."""
        position = mongod.log_position()
        error = self.login_error(mongod, self.stranger)
        told = details_of(error)
        named = told.get("code") == USER_NOT_FOUND and STRANGER in told.get("errmsg", "")
        self.screen.check("denied: a confirmed IAM user without a MongoDB user", named)
        self.screen.field("client", in_one_line(error))
        entry = mongod.find_in_log(lambda entry: STRANGER in json.dumps(entry), position)
        silence = "nothing: this mongod version does not log missing users"
        self.screen.field("mongod's log", entry["msg"] if entry else silence)

    def login_error(self, mongod, credentials):
        """Logs in and returns the error, or None."""
        try:
            with log_in(mongod.port, credentials) as connection:
                connection.admin.command("connectionStatus")
        except PyMongoError as error:
            return error
        return None


def built(name):
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    path = target / "release" / name
    if not path.exists():
        raise ServerError(f"{path} is missing: run make build")
    return path


def fetched_mongod():
    """The path of the mongod, which tools/fetch_mongod.py downloads if needed, and the folder of libraries that this
    system lacks, or None."""
    command = [sys.executable, ROOT / "tools" / "fetch_mongod.py", "--json", MONGOD_VERSION]
    fetched = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=False)
    if fetched.returncode != 0:
        raise ServerError(f"cannot fetch mongod {MONGOD_VERSION} (see above)")
    found = json.loads(fetched.stdout)
    return found["mongod"], found["library_path"]


def shortened(path):
    return path.relative_to(ROOT) if ROOT in path.parents else path


def show_logs(screen, servers):
    for server in servers:
        for file in server.log_files:
            lines = server.tail_of(file, 15)
            if lines:
                screen.say(f"{server.name}, end of {file}:")
                screen.block("\n".join(lines))


def interrupt(*_):
    raise KeyboardInterrupt


def conclusion(passed):
    if not passed:
        return "Some checks failed. The ends of the servers' logs are above."
    return (
        f"IAM principals logged in to a stock mongod {MONGOD_VERSION} with libpsmdb_aws_iam.so preloaded: the client"
        " signed a request, the plugin sent it to STS, and the principal that STS named got the roles of the MongoDB user"
        " of that name. No secret access key was sent to mongod, and nothing left this machine."
    )


def run_and_stop(screen):
    """Runs the demo; afterwards its servers are stopped and its files removed, even after an error."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="psmdb-aws-iam-demo-"))
        demo = Demo(screen, folder)
        try:
            demo.run(stack)
        except (ServerError, PyMongoError) as error:
            screen.check("the demo runs to the end", False, in_one_line(error))
        except Exception:
            # A defect; Python prints the traceback.
            show_logs(screen, demo.servers)
            raise
        else:
            screen.step("Stop both servers and remove their files")
            statuses = {server.name: server.stop() for server in reversed(demo.servers)}
            ended = ", ".join(f"{name} {status}" for name, status in statuses.items())
            screen.check("both servers stop cleanly", not any(statuses.values()), f"exit status: {ended}")
        finally:
            # The cleanup is short; a second Ctrl-C must not leave a server running.
            for number in ENDING_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
        if not screen.all_passed():
            show_logs(screen, demo.servers)


def main():
    forget_own_credentials()
    for number in ENDING_SIGNALS:
        # Under nohup, SIGHUP stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    screen = Screen()
    screen.title(f"MONGODB-AWS logins on a stock mongod {MONGOD_VERSION}, without AWS")
    try:
        run_and_stop(screen)
    except KeyboardInterrupt:
        screen.title("Interrupted; the servers are stopped and their files removed.")
        return 130
    passed = screen.all_passed()
    screen.summary(conclusion(passed))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
