"""One mail to real servers: TLS, login, and what arrives."""

import email
import email.policy

import pytest

USER, PASSWORD = "tenant1@example.com", "s3cret-pa$$"
LOGIN = ("--user", USER, "--password", PASSWORD)


def parsed(envelope):
    return email.message_from_bytes(envelope.content, policy=email.policy.default)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_both_tls_modes_verify_and_deliver(serve, client, authority, tls):
    """REQ-INFRA-CLIENT-002, REQ-INFRA-CLIENT-004: one mail arrives, encrypted, as it was asked for."""
    server = serve(tls)
    ran = client(
        "send",
        *server.options("--tls", tls, "--ca-file", authority.ca_file, "--from", "a@example.com"),
        *("--to", "b@example.net", "--subject", "Test Email", "--body", "This is a test email"),
    )
    assert (ran.code, ran.err) == (0, "")
    assert "accepted: 250 2.0.0 taken" in ran.out
    assert "TLSv1.3" in ran.out
    [envelope] = server.mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("a@example.com", ["b@example.net"])
    assert server.mailbox.tls == [True]
    message = parsed(envelope)
    assert message["Subject"] == "Test Email"
    assert message["From"] == "a@example.com"
    assert message["To"] == "b@example.net"
    assert message["Date"].datetime.tzinfo is not None
    assert message["Message-ID"].endswith("@example.com>")
    assert message["Message-ID"] in ran.out
    assert message.get_content() == "This is a test email\r\n" or message.get_content() == "This is a test email\n"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "[::1]"])
def test_names_and_addresses_of_both_families(serve, client, authority, host):
    """REQ-INFRA-CLIENT-002: the certificate is verified for a name, an IPv4 and an IPv6 address alike."""
    server = serve(host="::1" if ":" in host else "127.0.0.1")
    ran = client("send", "--host", host, "--port", server.port, "--ca-file", authority.ca_file)
    assert (ran.code, ran.err) == (0, "")
    hello = server.mailbox.hellos[-1]
    assert "." in hello or hello.startswith("[IPv6:")


@pytest.mark.parametrize(
    ("offered", "option", "used"),
    [
        (("PLAIN", "LOGIN"), "auto", "PLAIN"),
        (("LOGIN",), "auto", "LOGIN"),
        (("PLAIN", "LOGIN"), "login", "LOGIN"),
        (("PLAIN", "LOGIN"), "plain", "PLAIN"),
    ],
)
def test_login_before_sending(serve, client, authority, offered, option, used):
    """REQ-INFRA-CLIENT-003, REQ-INFRA-CLIENT-008: PLAIN and LOGIN, before the mail; --user is the sender."""
    server = serve(mechanisms=offered, auth_required=True)
    ran = client("send", *server.options("--ca-file", authority.ca_file, "--auth", option, *LOGIN))
    assert (ran.code, ran.err) == (0, "")
    assert server.mailbox.logins == [(used, USER)]
    assert f"AUTH {used}" in ran.out
    assert server.mailbox.envelopes[0].mail_from == USER


@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_wrong_password_shows_the_reply_and_no_password(serve, client, authority, mechanism):
    """REQ-INFRA-CLIENT-008: a refused login ends the run with exit code 5; nothing is sent."""
    server = serve(auth_required=True)
    ran = client(
        "send",
        *server.options("--ca-file", authority.ca_file, "--auth", mechanism),
        *("--user", USER, "--password", "wrongpassword"),
    )
    assert ran.code == 5
    assert f"auth: AUTH {mechanism.upper()} refused: 535 5.7.8" in ran.err
    assert USER in ran.err
    assert "wrongpassword" not in ran.err + ran.out
    assert server.mailbox.envelopes == []
    assert len(server.mailbox.logins) == 1


def test_mechanism_that_is_not_offered(serve, client, authority):
    """REQ-INFRA-CLIENT-003: the error says what the server offers."""
    server = serve(mechanisms=("PLAIN",))
    ran = client("send", *server.options("--ca-file", authority.ca_file, "--auth", "login", *LOGIN))
    assert ran.code == 5
    assert "the server offers AUTH PLAIN; wanted LOGIN" in ran.err
    assert server.mailbox.envelopes == []


def test_server_that_echoes_the_password(script, client):
    """REQ-INFRA-CLIENT-008: not even a server's reply brings the password to the screen."""
    port = script(
        b"220 hi\r\n", b"250-x\r\n250 AUTH PLAIN\r\n", b"535 no such pair: tenant s3cret-echo\r\n", b"221 bye\r\n"
    )
    ran = client(
        *("send", "--host", "127.0.0.1", "--port", port, "--tls", "none"),
        *("--user", "tenant", "--password", "s3cret-echo"),
    )
    assert ran.code == 5
    assert "535 no such pair: tenant [hidden]" in ran.err
    assert "s3cret-echo" not in ran.err + ran.out


def test_unknown_mechanism_is_tried_as_login(script, client):
    """REQ-INFRA-CLIENT-003: a server that offers PLAIN and does not know it is asked for LOGIN."""
    port = script(
        *(b"220 hi\r\n", b"250-x\r\n250 AUTH PLAIN LOGIN\r\n", b"504 5.5.4 unknown\r\n"),
        *(b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", b"235 2.7.0 welcome\r\n"),
        *(b"250 ok\r\n", b"250 ok\r\n", b"550 5.7.1 enough seen\r\n", b"250 reset\r\n", b"221 bye\r\n"),
    )
    ran = client("send", "--host", "127.0.0.1", "--port", port, "--tls", "none", *LOGIN)
    assert ran.code == 1
    assert "data: 550 5.7.1 enough seen" in ran.err


def test_password_never_crosses_the_network_in_the_clear(client):
    """REQ-INFRA-CLIENT-008: without TLS a login is for this machine only; refused before connecting."""
    ran = client("send", "--host", "192.0.2.1", "--tls", "none", "--timeout", "1", *LOGIN)
    assert ran.code == 2
    assert "refusing to log in without TLS: 192.0.2.1 is 192.0.2.1, not this machine" in ran.err


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_plain_login_on_loopback(serve, client):
    """REQ-INFRA-CLIENT-008: `--tls none` to this machine may log in."""
    server = serve(tls="none", auth_required=True)
    ran = client("send", *server.options("--tls", "none", *LOGIN))
    assert (ran.code, ran.err) == (0, "")
    assert server.mailbox.tls == [False]
    assert "no TLS" in ran.out


def test_starttls_is_not_optional(serve, client):
    """REQ-INFRA-CLIENT-002: a server without STARTTLS gets neither mail nor password."""
    server = serve(tls="none")
    ran = client("send", *server.options(*LOGIN))
    assert ran.code == 4
    assert "offers no STARTTLS" in ran.err
    assert (server.mailbox.envelopes, server.mailbox.logins) == ([], [])


def test_text_smuggled_before_tls_is_refused(script, client):
    """REQ-INFRA-CLIENT-002: replies sent in the clear behind the one to STARTTLS are not taken as encrypted."""
    port = script(b"220 hi\r\n", b"250-x\r\n250 STARTTLS\r\n", b"220 go\r\n250 forged\r\n")
    ran = client("send", "--host", "127.0.0.1", "--port", port)
    assert ran.code == 4
    assert "sent more after its answer to STARTTLS" in ran.err


def test_utf8_and_dots_arrive_unharmed(serve, client, authority, tmp_path):
    """REQ-INFRA-CLIENT-004: any body arrives, in seven bits, with CRLF only, and with its dots."""
    body = "grüße, naïve 漢字 \U0001f4ee\n.\n..two\n" + "long " * 400 + "\nbare\rreturn\n"
    file = tmp_path / "body.txt"
    file.write_bytes(body.encode())
    server = serve()
    ran = client("send", *server.options("--ca-file", authority.ca_file, "--body-file", file, "--subject", "Grüße $5"))
    assert (ran.code, ran.err) == (0, "")
    content = server.mailbox.envelopes[0].content
    assert content.isascii()
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert b"\r" not in content.replace(b"\r\n", b"")
    message = parsed(server.mailbox.envelopes[0])
    assert message["Subject"] == "Grüße $5"
    assert message.get_content().splitlines() == body.splitlines()


def test_smtputf8_only_when_an_address_needs_it(serve, client, authority):
    """REQ-INFRA-CLIENT-004: an address beyond ASCII needs SMTPUTF8; where it is missing that is said."""
    able = serve()
    ran = client("send", *able.options("--ca-file", authority.ca_file, "--to", "grüße@example.com"))
    assert (ran.code, ran.err) == (0, "")
    [envelope] = able.mailbox.envelopes
    assert envelope.rcpt_tos == ["grüße@example.com"]
    assert envelope.smtp_utf8
    assert "To: grüße@example.com".encode() in envelope.content
    unable = serve(enable_SMTPUTF8=False)
    ran = client("send", *unable.options("--ca-file", authority.ca_file, "--to", "grüße@example.com"))
    assert ran.code == 1
    assert "offers no SMTPUTF8" in ran.err


def test_several_recipients_one_refused(serve, client, authority):
    """REQ-INFRA-CLIENT-004: the mail goes to those accepted, the refused is named, the exit code is 1."""
    server = serve()
    server.mailbox.on_recipient = lambda address: "550 5.1.1 nobody here" if "bad" in address else None
    ran = client(
        "send",
        *server.options("--ca-file", authority.ca_file, "--to", "bad@example.com", "--to", "b@example.com"),
    )
    assert ran.code == 1
    assert server.mailbox.envelopes[0].rcpt_tos == ["b@example.com"]
    assert "error: bad@example.com refused: 550 5.1.1 nobody here" in ran.err


@pytest.mark.parametrize(("reply", "hook"), [("450 4.2.0 later", "on_recipient"), ("552 5.3.4 too big", "on_data")])
def test_refusals_are_shown_word_for_word(serve, client, authority, reply, hook):
    """REQ-INFRA-CLIENT-004: a 4xx or 5xx is exit code 1 and the server's own words."""
    server = serve()
    setattr(server.mailbox, hook, lambda _seen: reply)
    ran = client("send", *server.options("--ca-file", authority.ca_file))
    assert ran.code == 1
    assert reply in ran.err


def test_message_beyond_the_announced_size(serve, client, authority):
    """REQ-INFRA-CLIENT-004: SIZE lets the server refuse before the message is sent."""
    server = serve(data_size_limit=1000)
    ran = client("send", *server.options("--ca-file", authority.ca_file, "--body", "x" * 5000))
    assert ran.code == 1
    assert "mail: 552" in ran.err


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((b"",), "hello: connection closed by the server"),
        ((b"554 5.3.2 go away\r\n",), "hello: 554 5.3.2 go away"),
        ((b"SSH-2.0-OpenSSH_9\r\n",), "hello: not an SMTP reply"),
        ((b"220 hi\r\n", b"250 x\r\n", b"250 ok\r\n", b""), "rcpt: connection closed by the server"),
        (
            (b"220 hi\r\n", b"250 x\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b""),
            "data: connection ",  # closed, or lost where the closing met bytes that nobody had read
        ),
        ((b"220 hi\r\n", b"250 x\r\n", b"421 4.3.2 shutting down\r\n"), "mail: 421 4.3.2 shutting down"),
        ((b"220-" + b"x" * 10_000 + b"\r\n",), "hello: not an SMTP reply"),
        ((b"220-a\r\n" * 500,), "hello: a reply of more than 200 lines"),
    ],
)
def test_servers_that_misbehave(script, client, steps, said):
    """REQ-INFRA-CLIENT-004: drops, refusals and nonsense end in one clear line, never in a traceback."""
    ran = client("send", "--host", "127.0.0.1", "--port", script(*steps), "--tls", "none")
    assert said in ran.err
    assert ran.code == (1 if said.split()[1].isdigit() else 3)
    assert "Traceback" not in ran.err


def test_replies_cannot_drive_the_terminal(script, client):
    """REQ-INFRA-CLIENT-004: control characters of a server are shown, not obeyed."""
    ran = client("send", "--host", "127.0.0.1", "--port", script(b"554 \x1b[2Jboo\x07\r\n"), "--tls", "none")
    assert ran.code == 1
    assert "554 \\x1b[2Jboo\\x07" in ran.err
    assert "\x1b" not in ran.err


def test_silence_ends_at_the_timeout(script, client):
    """REQ-INFRA-CLIENT-004: a silent port is given up on, with a guess at the reason."""
    ran = client(*("send", "--host", "127.0.0.1", "--port", script(b"", hold_open=True), "--timeout", "0.3"))
    assert ran.code == 3
    assert "no answer within 0.3 s" in ran.err
    assert "--tls implicit" in ran.err


def test_nobody_listens(client, unused_port=1):
    """REQ-INFRA-CLIENT-004: exit code 3, with the address that was tried."""
    ran = client("send", "--host", "127.0.0.1", "--port", unused_port)
    assert ran.code == 3
    assert "cannot connect to 127.0.0.1:1 (127.0.0.1: Connection refused)" in ran.err


def test_unknown_host(client):
    """REQ-INFRA-CLIENT-004: exit code 3, with the name."""
    ran = client("send", "--host", "nowhere.invalid")
    assert ran.code == 3
    assert "cannot look up 'nowhere.invalid'" in ran.err
