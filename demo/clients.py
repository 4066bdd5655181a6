"""Identities as AWS issues them, PyMongo's clients, and their errors."""

import contextlib
import os
import secrets
import string
from datetime import datetime, timezone

import pymongo

ACCOUNT = "123456789012"

BASE32 = string.ascii_uppercase + "234567"
BASE64 = string.ascii_letters + string.digits + "+/"


def random_text(alphabet, length):
    return "".join(secrets.choice(alphabet) for _ in range(length))


def identity(arn, prefix="AKIA", **more):
    """An access key and its owner, in the format of local-sts."""
    return {
        "access_key_id": prefix + random_text(BASE32, 16),
        "secret_access_key": random_text(BASE64, 40),
        "arn": arn,
        "user_id": "AIDA" + random_text(BASE32, 17),
        "account": ACCOUNT,
        **more,
    }


def session(arn, expires_in):
    """Temporary credentials of a role."""
    return identity(
        arn,
        "ASIA",
        user_id=f"AROA{random_text(BASE32, 17)}:{arn.rsplit('/', 1)[1]}",
        session_token=random_text(BASE64, 400) + "==",
        expires_at=(datetime.now(timezone.utc) + expires_in).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def forget_own_credentials():
    """Keeps the user's AWS settings, and AWS itself, out of the demo."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull


def client(port, **options):
    return pymongo.MongoClient(
        "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=10_000, socketTimeoutMS=30_000, **options
    )


def log_in(port, credentials):
    """A client that logs in at its first use, with these credentials only."""
    properties = {}
    if "session_token" in credentials:
        properties["authMechanismProperties"] = {"AWS_SESSION_TOKEN": credentials["session_token"]}
    return client(
        port,
        username=credentials["access_key_id"],
        password=credentials["secret_access_key"],
        authSource="$external",
        authMechanism="MONGODB-AWS",
        **properties,
    )


@contextlib.contextmanager
def aws_environment(credentials):
    """Puts credentials into the environment, as on AWS."""
    names = {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_SESSION_TOKEN": "session_token",
    }
    os.environ.update({name: credentials[field] for name, field in names.items()})
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


def log_in_from_environment(port):
    """A client that takes its credentials from the environment at its first use."""
    return client(port, authSource="$external", authMechanism="MONGODB-AWS")


def details_of(error):
    """The server's reply behind an error; empty if the error has another source."""
    details = getattr(error, "details", None)
    return details if isinstance(details, dict) else {}


def in_one_line(error):
    """An error in one line, without the command's inner fields."""
    if error is None:
        return "no error"
    details = details_of(error)
    if not details:
        return " ".join(str(error).split())
    message = details.get("errmsg", "").split(" { ", 1)[0].rstrip(".")
    return f"{message} (code {details.get('code')}, {details.get('codeName')})"
