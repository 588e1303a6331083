"""Templates and composed mails: what is filled in, what is refused, and that text cannot become a header."""

import email
import email.policy
import re
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_proxy_client.errors import UsageError
from smtp_proxy_client.message import Template, checked_address, checked_line
from smtp_proxy_client.send import dot_stuffed

SENDER, RECIPIENT = "from@example.com", "to@example.net"
CONTROLS = "".join(map(chr, [*range(32), 127, 0x85, 0x2028, 0x2029]))
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=CONTROLS))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
quickly = settings(max_examples=60, deadline=None)


def parsed(letter):
    return email.message_from_bytes(letter.data, policy=email.policy.default)


def compose(template, count=1, recipients=(RECIPIENT,)):
    return template.compose(count, SENDER, recipients)


def test_all_fields_are_filled_in():
    """REQ-INFRA-CLIENT-011: $count, $to, $from, $date and $unique, in headers and in the body; $$ is a dollar."""
    template = Template.parse(
        "Subject: mail $count costs $$5\nX-Unique: $unique\n\n$count|$to|$from|$date|$unique|$$|${count}th\n"
    )
    message = parsed(compose(template, count=7, recipients=("a@example.net", "b@example.net")))
    count, to, sender, date, unique, dollar, braces = message.get_content().strip().split("|")
    assert message["Subject"] == "mail 7 costs $5"
    assert (count, to, sender, dollar, braces) == ("7", "a@example.net, b@example.net", SENDER, "$", "7th")
    assert datetime.strptime(date, "%Y-%m-%d %H:%M:%S %z").utcoffset() is not None
    assert re.fullmatch("[0-9a-f]{32}", unique)
    assert message["X-Unique"] == unique
    assert message["Message-ID"] == f"<{unique}@example.com>"


def test_unique_differs_from_mail_to_mail():
    """REQ-INFRA-CLIENT-011: $unique tells two mails of one template apart."""
    template = Template.parse("Subject: x\n\n$unique\n")
    assert len({parsed(compose(template)).get_content() for _ in range(50)}) == 50


def test_headers_of_the_template_go_before_the_clients():
    """REQ-INFRA-CLIENT-011: what a template sets is kept; what it leaves out is added."""
    template = Template.parse("From: Robot <$from>\nTo: Team <$to>\nReply-To: $from\nMessage-ID: <own@x>\n\nhi\n")
    message = parsed(compose(template))
    assert message["From"] == f"Robot <{SENDER}>"
    assert message["To"] == f"Team <{RECIPIENT}>"
    assert message["Message-ID"] == "<own@x>"
    assert message["Date"].datetime.tzinfo is not None
    assert "Subject" not in message


def test_html_template():
    """REQ-INFRA-CLIENT-011: text/html is the other type a template may have."""
    message = parsed(compose(Template.parse("Content-Type: text/html\nSubject: x\n\n<p>$count</p>\n")))
    assert message.get_content_type() == "text/html"
    assert message.get_content().strip() == "<p>1</p>"


def test_folded_header_stays_one_header():
    """REQ-INFRA-CLIENT-011: a header may go on in the next line."""
    message = parsed(compose(Template.parse("Subject: one\n two\nX-A: b\n\nhi\n")))
    assert message["Subject"] == "one two"
    assert message["X-A"] == "b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Subject: $nope\n\nhi\n", "there is no field $nope"),
        ("Subject: x\n\n$recipient\n", "there is no field $recipient"),
        ("Subject: x\n\nonly 5 $\n", "a dollar sign without a field"),
        ("Subject: x\n\n${count\n", "a dollar sign without a field"),
        ("Hello, this is no mail.\nBye\n", "does not begin with headers"),
        ("", "does not begin with headers"),
        ("MIME-Version: 1.0\n\nhi\n", "the header MIME-Version is set by the client"),
        ("Content-Transfer-Encoding: base64\n\nhi\n", "the header Content-Transfer-Encoding is set by the client"),
        ("Bcc: a@example.com\n\nhi\n", "the header Bcc is set by the client"),
        ("Content-Type: application/pdf\n\nhi\n", "Content-Type is application/pdf, not text/plain or text/html"),
        ("Subject: a\nSubject: b\n\nhi\n", "at most 1 Subject"),
        ("Subject: a\x0bb\n\nhi\n", "holds a control character"),
    ],
)
def test_mistakes_show_before_anything_is_sent(serve, client, tmp_path, text, said):
    """REQ-INFRA-CLIENT-011: exit code 2, the file's name and the mistake; no connection is made."""
    server, file = serve(), tmp_path / "mail.txt"
    file.write_bytes(text.encode())
    for command in ("send", "batch"):
        ran = client(command, *server.options("--insecure", "--template", file))
        assert (ran.code, ran.out) == (2, "")
        assert f"error: {file}: " in ran.err
        assert said in ran.err
    assert server.mailbox.connections == 0


def test_template_from_a_file(serve, client, authority, tmp_path):
    """REQ-INFRA-CLIENT-011: --template, of send and of batch; a byte order mark is no part of it."""
    file = tmp_path / "mail.txt"
    file.write_bytes("\ufeffSubject: Grüße $count\r\n\r\nto $to\r\n".encode())
    server = serve()
    for arguments in (("send",), ("batch", "--count", "2")):
        ran = client(*arguments, *server.options("--ca-file", authority.ca_file, "--template", file, "--to", RECIPIENT))
        assert ran.code == 0
    messages = [email.message_from_bytes(e.content, policy=email.policy.default) for e in server.mailbox.envelopes]
    assert [m["Subject"] for m in messages] == ["Grüße 1", "Grüße 1", "Grüße 2"]
    assert {m.get_content().strip() for m in messages} == {f"to {RECIPIENT}"}


@pytest.mark.parametrize(("content", "said"), [(None, "cannot read"), (b"Subject: \xff\n\n", "is not UTF-8 text")])
def test_template_that_cannot_be_read(client, tmp_path, content, said):
    """REQ-INFRA-CLIENT-011: exit code 2 and the file's name."""
    file = tmp_path / "mail.txt"
    if content:
        file.write_bytes(content)
    ran = client("send", "--template", file)
    assert ran.code == 2
    assert said in ran.err
    assert str(file) in ran.err


@pytest.mark.parametrize(
    "options",
    [
        ("--subject", "hello\r\nBcc: victim@example.com"),
        ("--subject", "hello\nBcc: victim@example.com"),
        ("--subject", "hello\rBcc: victim@example.com"),
        ("--from", "a@example.com>\r\nRCPT TO:<victim@example.com"),
        ("--to", "a@example.com\r\nDATA"),
        ("--to", "a@example.com\0"),
        ("--to", "a@example.com, b@example.com"),
        ("--to", "A <a@example.com>"),
        ("--to", "a\u200b@example.com"),
        ("--to", "nobody"),
        ("--from", "@example.com"),
        ("--user", "a\r\nMAIL FROM:<>", "--password", "x"),
        ("--user", "a", "--password", "x\0y"),
        ("--user", "a", "--password", "x\udcff"),
        ("--subject", "\udcff"),
        ("--body", "\udcff"),
        ("--host", "a\r\nb"),
        ("--server-name", "a\nb"),
    ],
)
def test_injection_is_refused(serve, client, options):
    """REQ-INFRA-CLIENT-004, REQ-INFRA-CLIENT-011: nothing adds a header or a command; nothing is sent."""
    server = serve()
    for command in ("send", "batch"):
        ran = client(command, *server.options("--insecure", *options))
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith("error: ")
    assert server.mailbox.connections == 0


@given(subject=LINES, body=TEXTS)
@quickly
def test_any_text_stays_where_it_was_put(subject, body):
    """REQ-INFRA-CLIENT-004: a text is one header or the body, never another header; a dollar stays a dollar."""
    letter = compose(Template.literal(subject, body))
    message = parsed(letter)
    names = ["Subject", "From", "To", "Date", "Message-ID"]
    assert message.keys() == [*names, "Content-Type", "Content-Transfer-Encoding", "MIME-Version"]
    assert message["From"] == SENDER
    assert message["To"] == RECIPIENT
    assert message.get_content().encode().splitlines() == (body.encode().splitlines() or [b""])
    assert letter.data.isascii()
    assert b"\n" not in letter.data.replace(b"\r\n", b"")


@given(before=LINES, after=LINES, count=st.integers(1, 10**9))
@quickly
def test_text_around_a_field_is_untouched(before, after, count):
    """REQ-INFRA-CLIENT-011: only the field changes, whatever stands around it."""
    text = f"{before.replace('$', '$$')}${{count}}{after.replace('$', '$$')}"
    message = parsed(compose(Template.parse(f"Subject: x\n\n{text}\n"), count))
    assert message.get_content().rstrip("\r\n") == f"{before}{count}{after}".rstrip("\r\n")


@given(before=LINES, control=st.sampled_from(CONTROLS), after=LINES)
@quickly
def test_no_control_character_passes(before, control, after):
    """REQ-INFRA-CLIENT-011: refused wherever it stands, and shown as an escape."""
    text = before + control + after
    for check in (checked_line, checked_address):
        with pytest.raises(UsageError) as caught:
            check(text, "--to")
        assert caught.value.reason.isprintable() or not (before + after).isprintable()


@given(TEXTS)
@quickly
def test_accepted_addresses_are_one_word_of_a_command(text):
    """REQ-INFRA-CLIENT-004: what passes cannot end the angle brackets that it is put into."""
    for candidate in (text, f"{text}@example.com", f"a@{text}"):
        try:
            address = checked_address(candidate, "--to")
        except UsageError:
            continue
        assert address == candidate
        assert address.isprintable()
        assert address.startswith('"') or not set(address) & set("<> ")


@given(st.lists(st.sampled_from([b".", b"\r\n", b"a", b"..", b"\r\n.\r\n"])).map(b"".join))
@quickly
def test_dots_cannot_end_the_message(data):
    """REQ-INFRA-CLIENT-004: the end is found at the end only, and the server gets back what was sent."""
    stuffed = dot_stuffed(data)
    assert (b"\r\n" + stuffed).index(b"\r\n.\r\n") == len(stuffed) - 3
    lines = stuffed.removesuffix(b".\r\n").split(b"\r\n")
    received = b"\r\n".join(line.removeprefix(b".") for line in lines)
    assert received == (data if data.endswith(b"\r\n") else data + b"\r\n")
