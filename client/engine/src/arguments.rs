//! The command line of `smtp-proxy-load`.

use std::{ffi::OsString, str::FromStr, time::Duration};

use lexopt::Arg::{Long, Short};
use smtp_proxy_client_engine::{Amount, Encryption, Password, Plan, Trust};

pub(crate) const USAGE: &str = "\
Usage: smtp-proxy-load --address HOST:PORT (--messages N | --seconds S) [options]

  --connections N              at once (10)
  --rate R                     open model: R messages a second are due; without it, as fast as answered
  --size BYTES                 header and body of a message (4096)
  --messages-per-connection N  then QUIT and connect again; 0 = never (0)
  --warmup-seconds S           sent first, not counted (0)
  --timeout-seconds S          to connect, and for each message (60)
  --pipelining                 MAIL, RCPT and DATA at once where the server offers it
  --from ADDRESS               sender; repeat it, and messages take turns
  --to ADDRESS                 recipient; repeat it, and messages take turns
  --tls none|starttls|implicit (none)
  --ca-file FILE               PEM, judges the certificate
  --insecure                   take any certificate
  --server-name NAME           expected in the certificate, sent as SNI (host of --address)
  --tls-resumption             allow abbreviated handshakes
  --user NAME                  AUTH PLAIN; the password is read from the environment
  --password-env VARIABLE      which one (SMTP_LOAD_PASSWORD)
  --run ID                     marks all messages of this run (random)
  --ledger FILE                write sequence<TAB>reply of each message that got 250
";

/// What was asked for.
pub(crate) enum Request {
    Help,
    Run(Box<Plan>),
}

/// What of the command line does not fit a `Plan` until all of it is read.
struct Login {
    user: Option<String>,
    password_variable: String,
}

/// Reads the command line; an error is one line for the operator.
pub(crate) fn parse(
    mut parser: lexopt::Parser,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Request, String> {
    let mut plan = Plan::new("", Amount::Messages(0));
    let (from, to) = (std::mem::take(&mut plan.from), std::mem::take(&mut plan.to));
    let mut login = Login {
        user: None,
        password_variable: "SMTP_LOAD_PASSWORD".to_owned(),
    };
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let name = match argument {
            Short('h') | Long("help") => return Ok(Request::Help),
            Long(name) => name.to_owned(),
            other => return Err(other.unexpected().to_string()),
        };
        if !switch(&mut plan, &name) {
            let value = parser.value().map_err(|error| error.to_string())?;
            option(&mut plan, &mut login, &name, &value)
                .map_err(|what| format!("--{name} {what}"))?;
        }
    }
    if plan.from.is_empty() {
        plan.from = from;
    }
    if plan.to.is_empty() {
        plan.to = to;
    }
    if let Some(user) = login.user {
        let variable = login.password_variable;
        let password =
            environment(&variable).ok_or(format!("--user needs the password in ${variable}"))?;
        plan.login = Some((user, Password(password)));
    }
    plan.check().map_err(|error| error.to_string())?;
    Ok(Request::Run(Box::new(plan)))
}

fn switch(plan: &mut Plan, name: &str) -> bool {
    match name {
        "pipelining" => plan.pipelining = true,
        "insecure" => plan.trust = Some(Trust::Anything),
        "tls-resumption" => plan.tls_resumption = true,
        _ => return false,
    }
    true
}

fn option(plan: &mut Plan, login: &mut Login, name: &str, value: &OsString) -> Result<(), String> {
    let text = value.to_str().ok_or("is not UTF-8")?;
    match name {
        "address" => text.clone_into(&mut plan.address),
        "connections" => plan.connections = number(text)?,
        "messages" => plan.amount = Amount::Messages(number(text)?),
        "seconds" => plan.amount = Amount::For(seconds(text)?),
        "rate" => plan.rate = Some(number(text)?),
        "size" => plan.size_bytes = number(text)?,
        "messages-per-connection" => plan.messages_per_connection = number(text)?,
        "warmup-seconds" => plan.warmup = seconds(text)?,
        "timeout-seconds" => plan.timeout = seconds(text)?,
        "from" => plan.from.push(text.to_owned()),
        "to" => plan.to.push(text.to_owned()),
        "tls" => plan.encryption = encryption(text)?,
        "ca-file" => plan.trust = Some(Trust::CaFile(value.into())),
        "server-name" => plan.server_name = Some(text.to_owned()),
        "user" => login.user = Some(text.to_owned()),
        "password-env" => text.clone_into(&mut login.password_variable),
        "run" => text.clone_into(&mut plan.run),
        "ledger" => plan.ledger = Some(value.into()),
        _ => return Err("is not an option".to_owned()),
    }
    Ok(())
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text}: a number is expected"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number(text)?).map_err(|_| format!("{text}: seconds are expected"))
}

fn encryption(text: &str) -> Result<Encryption, String> {
    match text {
        "none" => Ok(Encryption::None),
        "starttls" => Ok(Encryption::StartTls),
        "implicit" => Ok(Encryption::Implicit),
        other => Err(format!("{other}: none, starttls or implicit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        parse(lexopt::Parser::from_args(line.split(' ')), |name| {
            (name == "SMTP_LOAD_PASSWORD").then(|| "secret".into())
        })
    }

    fn plan(line: &str) -> Plan {
        match parsed(line) {
            Ok(Request::Run(plan)) => *plan,
            Ok(Request::Help) => panic!("{line}: help"),
            Err(error) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn options_reach_the_plan() {
        let plan = plan(
            "--address localhost:587 --seconds 1.5 --connections 50 --rate 170 --tls starttls --insecure --user u \
             --from a@x --from b@x --pipelining",
        );
        assert_eq!(plan.amount, Amount::For(Duration::from_millis(1500)));
        assert_eq!(
            (plan.connections, plan.rate, plan.encryption),
            (50, Some(170.0), Encryption::StartTls)
        );
        assert_eq!(plan.login, Some(("u".into(), Password("secret".into()))));
        assert_eq!(
            (plan.from, plan.to),
            (
                vec!["a@x".to_owned(), "b@x".to_owned()],
                vec!["recipient@load.example".to_owned()]
            )
        );
        assert!(plan.pipelining);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let broken = [
            ("--address localhost:25 --messages many", "--messages many"),
            ("--address localhost:25 --sekunden 3", "--sekunden"),
            ("--messages 5", "--address"),
            (
                "--address localhost:25 --messages 1 --tls maybe",
                "none, starttls or implicit",
            ),
            (
                "--address localhost:25 --messages 1 --tls implicit --insecure --user u --password-env NOT_SET",
                "$NOT_SET",
            ),
            ("--address localhost:25 --seconds -1", "--seconds"),
        ];
        for (line, named) in broken {
            let error = parsed(line).err().unwrap_or_default();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn help_is_help() {
        assert!(matches!(parsed("--address h:1 --help"), Ok(Request::Help)));
    }
}
