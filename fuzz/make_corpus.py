#!/usr/bin/env python3
"""Writes corpus/: for each target a few inputs that are accepted and a few that are nearly so."""

import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
DATE = b"20261121T191300Z"
SCOPE = b"20261121/us-east-1/sts/aws4_request"
SIGNATURE = b"0123456789abcdef" * 4
SIGNED = b"content-length;content-type;host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce"
SIGNED_TOKEN = SIGNED.replace(b"x-amz-date;", b"x-amz-date;x-amz-security-token;")
TOKEN = b"FwoGZXIvYXdzEJr//////////wEaDExample+/=="


def element(kind, name, value):
    return bytes([kind]) + name + b"\0" + value


def string(name, text):
    return element(2, name, struct.pack("<i", len(text) + 1) + text + b"\0")


def binary(name, data, subtype=0):
    return element(5, name, struct.pack("<iB", len(data), subtype) + data)


def int32(name, number):
    return element(16, name, struct.pack("<i", number))


def document(*elements):
    body = b"".join(elements)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def header(key=b"AKIDEXAMPLE", scope=SCOPE, signed=SIGNED, signature=SIGNATURE):
    return b"AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (key, scope, signed, signature)


def client_first():
    nonce, flag = binary(b"r", bytes(range(32))), int32(b"p", 110)
    return {
        "good": document(nonce, flag),
        "other_order": document(flag, nonce),
        "short_nonce": document(binary(b"r", bytes(31)), flag),
        "uuid_nonce": document(binary(b"r", bytes(32), 4), flag),
        "old_binary": document(binary(b"r", struct.pack("<i", 28) + bytes(28), 2), flag),
        "other_flag": document(nonce, int32(b"p", 121)),
        "long_flag": document(nonce, element(18, b"p", struct.pack("<q", 110))),
        "field_twice": document(nonce, flag, flag),
        "further_field": document(nonce, flag, string(b"c", b"x")),
        "trailing_byte": document(nonce, flag) + b"\0",
        "empty": document(),
    }


def client_second():
    def message(authorization, date=DATE, *more):
        return document(string(b"a", authorization), string(b"d", date), *more)

    with_token = header(key=b"ASIAEXAMPLE", signed=SIGNED_TOKEN)
    return {
        "good": message(header()),
        "good_token": message(with_token, DATE, string(b"t", TOKEN)),
        "good_minimal": message(header(signed=b"host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce")),
        "no_token": message(with_token),
        "stale": message(header(), b"20261121T185700Z"),
        "other_region": message(header(scope=b"20261121/eu-west-1/sts/aws4_request")),
        "null_token": message(header(), DATE, element(10, b"t", b"")),
        "reserved_field": message(header(), DATE, string(b"p", b"x")),
        "no_date": document(string(b"a", header())),
        "fields": b"\xff".join([header(), DATE]),
        "fields_token": b"\xff".join([with_token, DATE, TOKEN]),
        "fields_newline": b"\xff".join([header() + b"\r\nX-Evil: 1", DATE]),
        "fields_bad_token": b"\xff".join([with_token, DATE, b"a b\r\n"]),
    }


def authorization():
    return {
        "good": b"a" + header(),
        "good_token": b"A" + header(signed=SIGNED_TOKEN),
        "good_minimal": b"a" + header(signed=b"host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce"),
        "no_nonce": b"a" + header(signed=SIGNED.removesuffix(b";x-mongodb-server-nonce")),
        "header_twice": b"a" + header(signed=SIGNED.replace(b"host;", b"host;host;")),
        "other_day": b"a" + header(scope=SCOPE.replace(b"1121", b"1122")),
        "other_service": b"a" + header(scope=SCOPE.replace(b"sts", b"iam")),
        "escape_region": b"a" + header(scope=SCOPE.replace(b"us-east-1", b"eu\x1b[31m")),
        "upper_signature": b"a" + header(signature=SIGNATURE.upper()),
        "date": b"d" + DATE,
        "date_epoch": b"d19700101T000000Z",
        "date_leap": b"d20240229T235959Z",
        "date_no_leap": b"d21000229T000000Z",
        "date_second_60": b"d20261121T191360Z",
        "date_year_0": b"d00000101T000000Z",
        "token": b"t" + TOKEN,
        "token_newline": b"tabc\r\nX-Evil: 1",
        "token_empty": b"t",
    }


def sts_response():
    def answer(arn, user_id=b"AIDACKCEVSQ6C2EXAMPLE", account=b"123456789012"):
        return (
            b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">\n'
            b"  <GetCallerIdentityResult>\n"
            b"    <Arn>%s</Arn>\n    <UserId>%s</UserId>\n    <Account>%s</Account>\n"
            b"  </GetCallerIdentityResult>\n"
            b"  <ResponseMetadata>\n    <RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId>\n"
            b"  </ResponseMetadata>\n</GetCallerIdentityResponse>\n" % (arn, user_id, account)
        )

    def error(code):
        return (
            b'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code>'
            b"<Message>text</Message></Error><RequestId>d8741953-0000</RequestId></ErrorResponse>" % code
        )

    user = answer(b"arn:aws:iam::123456789012:user/alice")
    role = answer(b"arn:aws:sts::123456789012:assumed-role/app/i-0abc", b"AROAEXAMPLE:i-0abc")
    ok = b"200 text/xml\n"
    return {
        "user": ok + user,
        "role": b'200 text/xml;charset=utf-8\n<?xml version="1.0" encoding="UTF-8"?>\n' + role,
        "path": ok + answer(b"arn:aws:iam::123456789012:user/a&#x3a;b&lt;&amp;/alice"),
        "service": ok + answer(b"arn:aws:ec2::123456789012:instance/i-0abc"),
        "other_account": ok + answer(b"arn:aws:iam::123456789012:root", b"123456789012", b"210987654321"),
        "arn_twice": ok + user.replace(b"<UserId>", b"<Arn>arn:aws:iam::123456789012:root</Arn><UserId>"),
        "arn_elsewhere": ok + user.replace(b"<RequestId>", b"<Arn>x</Arn><RequestId>"),
        "two_documents": ok + user + role,
        "comment": ok + user.replace(b"alice", b"al<!-- -->ice"),
        "cdata": ok + user.replace(b"alice", b"<![CDATA[alice]]>"),
        "doctype": ok + b'<!DOCTYPE a [<!ENTITY b "c">]>' + user.replace(b"alice", b"&b;"),
        "prefix": ok + user.replace(b"<Arn>", b"<x:Arn xmlns:x='y'>").replace(b"</Arn>", b"</x:Arn>"),
        "html": b"200 text/html\n<html><body>Sign in</body></html>",
        "refused": b"403 text/xml\n" + error(b"InvalidClientTokenId"),
        "throttled": b"400 text/xml\n" + error(b"Throttling"),
        "control_code": b"403 text/xml\n" + error(b"a&#10;b"),
        "unavailable": b"503 \n",
        "user_403": b"403 text/xml\n" + user,
    }


def arn():
    accepted = {
        "user": "iam::123456789012:user/alice",
        "user_path": "iam::123456789012:user/team/a:b*<&/alice",
        "root": "iam::123456789012:root",
        "role": "sts::123456789012:assumed-role/app/i-0abc",
        "sso": "sts::123456789012:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/ann@example.com",
        "federated": "sts::123456789012:federated-user/fred",
    }
    inputs = {name: b"arn:aws:" + rest.encode() for name, rest in accepted.items()}
    return inputs | {
        "china": b"arn:aws-cn:iam::123456789012:root",
        "iso": b"arn:aws-iso-b:iam::123456789012:root",
        "instance": b"arn:aws:ec2::123456789012:instance/i-0abc",
        "role_itself": b"arn:aws:iam::123456789012:role/app",
        "long_account": b"arn:aws:iam::1234567890123:root",
        "region": b"arn:aws:iam:us-east-1:123456789012:user/alice",
        "empty_path": b"arn:aws:iam::123456789012:user//alice",
        "newline": b"arn:aws:iam::123456789012:root\n",
    }


# An Ed25519 certificate of nobody's, "fuzz", whose key was thrown away.
CERTIFICATE = b"""-----BEGIN CERTIFICATE-----
MIIBNDCB56ADAgECAhQ5B75oGm6Pjt8XX7yTDUSJHXYuwTAFBgMrZXAwDzENMAsG
A1UEAwwEZnV6ejAgFw0yNjExMjEyMTM3MThaGA8yMTI2MTAyODIxMzcxOFowDzEN
MAsGA1UEAwwEZnV6ejAqMAUGAytlcAMhAKCLy7sIKfvXd2pNNCfnn6oC5ICGn7Ra
Sb4RLE27r/emo1MwUTAdBgNVHQ4EFgQU0FTpMGCb+IYQwelYSRMzJH2kkIswHwYD
VR0jBBgwFoAU0FTpMGCb+IYQwelYSRMzJH2kkIswDwYDVR0TAQH/BAUwAwEB/zAF
BgMrZXADQQADRPxSo2IdKR8jkr8LiC/VlmH3Y13dcpQFBc4hZiTdnx/nFa37mhy5
ok5UE2MlgC/y49B0huiFTWHnSxN5J8kL
-----END CERTIFICATE-----
"""


def parameters():
    return {
        "host": b"0tsts.us-gov-west-1.amazonaws.com",
        "host_one_label": b"0tsts",
        "host_number": b"0t127.0.0.1",
        "host_no_region": b"0tvpce-1.sts.eu-west-1.vpce.amazonaws.com",
        "host_bson": b"0b" + string(b"awsStsHost", b"sts.eu-west-1.amazonaws.com"),
        "host_bson_number": b"0b" + int32(b"awsStsHost", 1),
        "endpoint": b"1thttps://vpce-1.sts.eu-west-1.vpce.amazonaws.com",
        "endpoint_port": b"1thttps://127.0.0.1:8443",
        "endpoint_ipv6": b"1thttps://[::ffff:127.0.0.1]:443",
        "endpoint_user": b"1thttps://user@host/path?query",
        "endpoint_none": b"1b" + string(b"awsStsEndpoint", b""),
        "file_relative": b"2troots.pem",
        "file_no_pem": b"2t/roots.pem",
        "file_folder": b"2t/",
        "file_pem": b"2p" + CERTIFICATE,
        "file_junk": b"2p-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "timeout": b"3t2500",
        "timeout_plus": b"3t+60000",
        "timeout_double": b"3b" + element(1, b"awsStsTimeoutMS", struct.pack("<d", 2500)),
        "timeout_long": b"3b" + element(18, b"awsStsTimeoutMS", struct.pack("<q", 60001)),
        "accounts": b"4t123456789012,210987654321",
        "accounts_space": b"4t123456789012, 210987654321",
        "proxy": b"5thttp://proxy.example.com:3128",
        "proxy_no_port": b"5thttp://proxy.example.com",
        "proxy_user": b"5thttp://user:password@[::1]:3128",
        "fallback": b"6tsts.us-west-2.amazonaws.com,sts.us-east-2.amazonaws.com=https://127.0.0.1:8443",
        "format": b"7tassumedRole",
        "fallback_empty_entry": b"6tsts.us-west-2.amazonaws.com,,",
    }


def c_abi():
    new, free, step, first, second, impossible, look, set_text, set_bson, check_bson, named, counters = range(12)

    def call(number, which=0, text=None):
        return bytes([number, which]) + (b"" if text is None else struct.pack("<H", len(text)) + text)

    good_first = document(binary(b"r", bytes(range(32))), int32(b"p", 110))
    timeout = int32(b"awsStsTimeoutMS", 250)
    return {
        "login": call(new) + bytes([first, 0, 1]) + call(second, 0, b"") + call(look) + call(free),
        "login_token": call(new) + bytes([first, 0, 1]) + call(second, 0, TOKEN) + call(counters, 0, b"awsIam"),
        "bad_token": call(new) + bytes([first, 0, 1]) + call(second, 0, b"a b"),
        "raw_first": call(new, 1) + call(step, 1, good_first) + call(step, 1, good_first) + call(look, 1),
        "no_conversation": call(step, 2, good_first) + call(look, 2) + call(free, 2),
        "three_at_once": b"".join(call(new, at) + bytes([first, at, at]) for at in range(3)) + call(free, 1),
        "impossible": call(new) + call(impossible, 0, b"x") + call(look) + call(impossible, 9, b""),
        "host_changes": call(new) + call(set_text, 0, b"sts.eu-west-1.amazonaws.com") + call(new, 1)
        + bytes([first, 0, 1]) + bytes([first, 1, 1]) + call(second, 0, b"") + call(second, 1, b""),
        "parameters": call(set_text, 3, b"2000") + call(set_text, 3, b"1") + call(set_bson, 3, timeout)
        + call(check_bson, 3, timeout) + call(named, 3, b"value"),
        "endpoint": call(set_text, 1, b"https://localhost:8443") + call(named, 1, b"awsStsEndpoint"),
        "broken_bson": call(set_bson, 0, b"\x02x\0\xff\xff\xff\x7fa\0") + call(check_bson, 0, b"\x02x\0"),
        "no_such_index": call(set_text, 8, b"x") + call(named, 200, b"x") + call(check_bson, 9, timeout),
        "proxy": call(set_text, 5, b"http://127.0.0.1:1") + call(named, 5, b"awsStsProxy"),
        "fallback": call(set_text, 6, b"sts.eu-west-1.amazonaws.com=https://127.0.0.1:1") + call(named, 6, b"x"),
        "name_with_nul": call(named, 0, b"a\0b") + call(counters, 0, b"\xff") + call(counters, 0, b""),
        "relative_file": call(set_text, 2, b"roots.pem") + call(named, 2, b"awsStsCAFile"),
    }


def main():
    for target in [client_first, client_second, authorization, sts_response, arn, parameters, c_abi]:
        folder = HERE / "corpus" / target.__name__
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in target().items():
            assert len(data) < 2048, name
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
