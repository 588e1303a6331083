//! Whom a login is counted for, and what a failed one costs.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use smtp_proxy_proto::{Event, LoginRequest, LoginVerdict, Proof, reply};
use tokio::time::sleep;

use super::{Connection, Gone};
use crate::stream::Io;

/// Whose failures a login's are: a username's, or a certificate's, whatever name it asked for. A username
/// has no control characters, so the two never meet.
pub(super) fn claimed(request: &LoginRequest) -> String {
    match &request.proof {
        Proof::Password(_) => request.username.clone(),
        Proof::Certificate(certificate) => format!("\0{}", certificate.fingerprint_hex()),
    }
}

impl<S: Io> Connection<S> {
    /// What the networks of a credential are held against: empty, and so in none of them, where a proxy
    /// did not say who the client is.
    pub(super) fn login_address(&self) -> Arc<str> {
        if self.visit.is_of_proxy() {
            Arc::from("")
        } else {
            Arc::clone(&self.client_address)
        }
    }

    /// One that needs no verifying to be refused.
    pub(super) async fn fail_login(&mut self, username: &str) -> Result<Event, Gone> {
        self.flush().await?;
        if self.visit.is_banned() {
            return Ok(self.end_banned());
        }
        self.shared.metrics.auth_failures_total.one();
        let verdict = LoginVerdict::Rejected;
        self.take_to_heart(username, &verdict).await;
        let event = self.session.login_answered(verdict, &mut self.out);
        Ok(self.go_on(event))
    }

    /// What is known of the client changes, and a failure is answered late. Waiting costs a timer, and
    /// no thread. A drain does not wait for it.
    pub(super) async fn take_to_heart(&mut self, claimed: &str, verdict: &LoginVerdict) {
        match verdict {
            LoginVerdict::Accepted(_) | LoginVerdict::Crowded => self.visit.login_succeeded(),
            LoginVerdict::Unavailable => {}
            LoginVerdict::Rejected => {
                let delay = self.visit.login_failed(claimed);
                if !delay.is_zero() {
                    self.shared.metrics.login_delays_total.one();
                    self.wait_or_leave(delay).await;
                }
            }
        }
    }

    /// So long, or until the order to close.
    pub(super) async fn wait_or_leave(&self, delay: Duration) {
        let leaving = std::future::poll_fn(|cx| {
            if self.mailbox().is_closing(cx) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        tokio::select! {
            biased;
            () = leaving => {}
            () = sleep(delay) => {}
        }
    }

    /// Its address was banned while it was connected: its guesses are not even looked at.
    pub(super) fn end_banned(&mut self) -> Event {
        self.shared.metrics.refused_banned_total.one();
        self.session.end_with(&reply::BANNED, &mut self.out)
    }
}
