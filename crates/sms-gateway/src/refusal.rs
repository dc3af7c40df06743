use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Why a request is refused; codes and texts are those of Twilio.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("Authenticate")]
    Unauthenticated,
    #[error("The requested resource was not found")]
    NotFound,
    #[error("{0}")]
    Unreadable(String),
    #[error("A 'To' phone number is required.")]
    NoTo,
    #[error("A 'From' phone number is required.")]
    NoFrom,
    #[error("Message body is required.")]
    NoBody,
    #[error("The concatenated message body exceeds the 1600 character limit.")]
    LongBody,
    #[error("The 'To' number {0} is not a valid phone number.")]
    InvalidTo(String),
    #[error("The 'From' number {0} is not a valid phone number, shortcode, or alphanumeric sender ID.")]
    InvalidFrom(String),
    #[error("{}", StatusCode::from_u16(*.0).ok().and_then(|status| status.canonical_reason()).unwrap_or("Fault"))]
    Fault(u16),
}

/// The body of a refusal.
#[derive(Serialize)]
struct Body {
    code: u32,
    message: String,
    more_info: String,
    status: u16,
}

impl Refusal {
    fn status(&self) -> u16 {
        match self {
            Self::Unauthenticated => 401,
            Self::NotFound => 404,
            Self::Fault(status) => *status,
            _ => 400,
        }
    }

    fn code(&self) -> u32 {
        match self {
            Self::Unauthenticated => 20003,
            Self::NotFound => 20404,
            Self::Unreadable(_) => 20001,
            Self::NoTo => 21604,
            Self::NoFrom => 21603,
            Self::NoBody => 21602,
            Self::LongBody => 21617,
            Self::InvalidTo(_) => 21211,
            Self::InvalidFrom(_) => 21212,
            // Twilio's general errors are 20000 and the status: 20429 Too Many Requests, 20503 Service Unavailable.
            Self::Fault(status) => 20_000 + u32::from(*status),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, status) = (self.code(), self.status());
        let more_info = format!("https://www.twilio.com/docs/errors/{code}");
        let body = Body {
            code,
            message: self.to_string(),
            more_info,
            status,
        };
        (
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Json(body),
        )
            .into_response()
    }
}
