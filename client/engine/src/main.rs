//! `smtp-proxy-load`: puts load on an SMTP server and reports what it saw, as JSON on standard output.
//!
//! Leaves with 0 when everything was accepted, 1 when something failed, 2 when the command line makes no sense.

mod arguments;

use std::{
    io::{Write as _, stderr, stdout},
    process::ExitCode,
};

use arguments::{Request, USAGE, parse};
use smtp_proxy_client_engine::{Error, Plan, run};

fn main() -> ExitCode {
    let request = parse(lexopt::Parser::from_env(), |name| std::env::var(name).ok());
    let outcome = match request {
        Ok(Request::Help) => write!(stdout(), "{USAGE}").map(|()| ExitCode::SUCCESS),
        Ok(Request::Run(plan)) => perform(*plan),
        Err(what) => {
            write!(stderr(), "smtp-proxy-load: {what}\n\n{USAGE}").map(|()| ExitCode::from(2))
        }
    };
    outcome.unwrap_or(ExitCode::FAILURE)
}

fn perform(plan: Plan) -> std::io::Result<ExitCode> {
    match run(plan) {
        Ok(report) => {
            let json = serde_json::to_string_pretty(&report)?;
            writeln!(stdout(), "{json}")?;
            let clean = report.errors_total == 0 && report.never_sent == 0;
            Ok(if clean {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Err(error) => {
            writeln!(stderr(), "smtp-proxy-load: {error}")?;
            let operators = matches!(error, Error::Plan(_) | Error::Certificates(_));
            Ok(ExitCode::from(if operators { 2 } else { 1 }))
        }
    }
}
