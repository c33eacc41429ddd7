//! The reason why no TLS connection to a handler came about, in words that name the setting to look at.

use std::error::Error;
use std::io;

use rustls::{AlertDescription as Alert, CertificateError};

/// The problem, if an error is one of TLS. `known` is true where the gateway has a certificate of its own to show.
pub(super) fn problem(error: &(dyn Error + 'static), known: bool) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = within.map_or_else(
            || error.downcast_ref::<rustls::Error>(),
            |within| within.downcast_ref::<rustls::Error>(),
        );
        if let Some(found) = found {
            return Some(text(found, known));
        }
        if let Some(alert) = alert_in_words(&error.to_string()) {
            return Some(refusal(alert, known));
        }
        // An I/O error says what is within its error, and leaves that one out.
        next = match within {
            Some(within) => Some(within),
            None => error.source(),
        };
    }
    None
}

/// The alerts by which a server refuses a certificate, or its lack.
const REFUSALS: [Alert; 10] = [
    Alert::CertificateRequired,
    Alert::HandshakeFailure,
    Alert::BadCertificate,
    Alert::UnsupportedCertificate,
    Alert::CertificateRevoked,
    Alert::CertificateExpired,
    Alert::CertificateUnknown,
    Alert::UnknownCA,
    Alert::AccessDenied,
    Alert::DecryptError,
];

/// With TLS 1.3 a refusal comes after the handshake, and the library of HTTP/2 keeps no more than the text of its error.
fn alert_in_words(text: &str) -> Option<Alert> {
    let of = |alert: &Alert| rustls::Error::AlertReceived(*alert).to_string() == text;
    REFUSALS.into_iter().find(of)
}

fn text(error: &rustls::Error, known: bool) -> String {
    match error {
        rustls::Error::InvalidCertificate(fault) => certificate(fault),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS (url)".to_owned(),
        rustls::Error::AlertReceived(alert) => refusal(*alert, known),
        other => other.to_string(),
    }
}

fn certificate(fault: &CertificateError) -> String {
    let text = match fault {
        CertificateError::UnknownIssuer => {
            "its certificate is of an authority that is not trusted here; ca_file names those that are, in place of the system's"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: compare the clocks"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for other hosts than the one of url"
        }
        CertificateError::Revoked => "its certificate was revoked",
        other => return format!("its certificate can't be used: {other}"),
    };
    text.to_owned()
}

/// The word of a handler that ends the handshake.
fn refusal(alert: Alert, known: bool) -> String {
    let text = match alert {
        Alert::CertificateRequired => "it wants to see a certificate of the gateway (identity_file)",
        // The word of TLS 1.2 for the same.
        Alert::HandshakeFailure if !known => {
            "it ended the handshake; it may want to see a certificate of the gateway (identity_file)"
        }
        alert if known && REFUSALS.contains(&alert) => {
            return format!("it does not accept the gateway's certificate (identity_file): {alert:?}");
        }
        other => return format!("it ended the handshake: {other:?}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io_error(within: rustls::Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, within)
    }

    #[test]
    fn an_error_of_tls_is_found_however_deep_it_is() {
        let expired = || rustls::Error::InvalidCertificate(CertificateError::Expired);
        let text = Some("its certificate has expired".to_owned());
        assert_eq!(problem(&expired(), false), text);
        assert_eq!(problem(&io_error(expired()), false), text);
        let nested = io::Error::other(io_error(expired()));
        assert_eq!(problem(&nested, false), text);
        assert_eq!(problem(&io::Error::other("expired"), false), None);
    }

    #[test]
    fn refusals_name_the_setting_also_where_only_their_text_is_left() {
        for alert in REFUSALS {
            let error = rustls::Error::AlertReceived(alert);
            let words = io::Error::other(error.to_string());
            for known in [true, false] {
                let text = problem(&words, known);
                assert_eq!(text, problem(&io_error(error.clone()), known), "{alert:?}");
                assert!(text.is_some());
            }
            let text = problem(&words, true).unwrap_or_default();
            assert!(text.contains("identity_file"), "{text}");
        }
    }
}
