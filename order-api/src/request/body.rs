//! The request body: size and time limits, media type, JSON, and errors that point at the field.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use crate::app::App;
use crate::problem::{FieldError, Problem, catalogue, sentence};

/// Of a body that is too large, this many times the limit are still taken in before it is refused.
const DISCARDED: usize = 8;

/// What a body may cost.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The largest body, in bytes.
    pub max_bytes: usize,
    /// The time it may take to arrive.
    pub read_timeout: Duration,
}

/// A JSON body of type `T`.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

/// The body of an operation that takes none; an empty object is allowed, since many clients always send one.
#[derive(Debug)]
pub struct NoBody;

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let bytes = read(request, app.settings.body).await?;
        parse(&bytes).map(JsonBody)
    }
}

impl FromRequest<App> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let bytes = read(request, app.settings.body).await?;
        match bytes.trim_ascii() {
            b"" | b"{}" => Ok(Self),
            _ => Err(Problem::fields(vec![FieldError {
                pointer: "#".into(),
                detail: "this operation takes no body".into(),
            }])),
        }
    }
}

/// Parses JSON into `T`. A body that is not JSON is malformed; one that is JSON of another shape has invalid fields.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| match error.inner().classify() {
        serde_json::error::Category::Data => wrong_shape(&error),
        _ => malformed(error.inner()),
    })?;
    json.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

/// The same for a part of a body that has been parsed; pointers start at the part.
pub fn from_value<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| wrong_shape(&error))
}

fn wrong_shape(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let (mut pointer, mut detail) = (pointer_to(error.path()), without_place(error.inner()));
    // serde points at the object that lacks the field; the client looks for the field.
    let missing = detail
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    if let Some(field) = missing {
        push_segment(&mut pointer, field);
        detail = "is missing".to_owned();
    }
    let detail = detail.into();
    Problem::fields(vec![FieldError { pointer, detail }])
}

async fn read(request: Request, limits: BodyLimits) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            &catalogue::BODY_TOO_LARGE,
            format!("A body may have at most {} bytes.", limits.max_bytes),
        )
    };
    let declared_too_large = content_length(request.headers()).is_some_and(|length| length > limits.max_bytes as u64);
    // A sender that asks first gets its refusal before it sends anything.
    if declared_too_large && request.headers().contains_key(EXPECT) {
        return Err(too_large());
    }
    let mut body = request.into_body();
    let work = async {
        if !declared_too_large {
            match Limited::new(&mut body, limits.max_bytes).collect().await {
                Ok(whole) => return Ok(whole.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => {}
                Err(_) => {
                    let detail = "The body ended before it was complete.";
                    return Err(Problem::new(&catalogue::MALFORMED_REQUEST, detail));
                }
            }
        }
        discard(&mut body, limits.max_bytes.saturating_mul(DISCARDED)).await;
        Err(too_large())
    };
    let late = || {
        let waited = limits.read_timeout.as_secs_f32();
        Problem::new(
            &catalogue::REQUEST_TIMEOUT,
            format!("The body did not arrive within {waited} s."),
        )
    };
    tokio::time::timeout(limits.read_timeout, work)
        .await
        .map_err(|_| late())?
}

/// Reads on without keeping anything, up to `most` bytes. A sender that is still writing when the connection is closed sees
/// its write fail and never reads why.
async fn discard(body: &mut Body, most: usize) {
    let mut left = most;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else {
            return;
        };
        left = rest;
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `application/json` or a type with the suffix `+json` (such as `application/merge-patch+json`), in UTF-8, not coded.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail: &'static str| Err(Problem::new(&catalogue::UNSUPPORTED_MEDIA_TYPE, detail));
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return refuse("The header Content-Type is missing; send application/json.");
    };
    let essence = content_type
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let essence = essence.to_ascii_lowercase();
    let is_json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if !is_json {
        return refuse("The Content-Type is not application/json.");
    }
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            refuse("Content codings are not taken; send the body as it is.")
        }
        _ => Ok(()),
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(
        &catalogue::MALFORMED_JSON,
        sentence(format_args!(
            "{} at line {}, column {}",
            without_place(error),
            error.line(),
            error.column()
        )),
    )
}

/// The message without "at line .. column ..", which the pointer or our own sentence tells already.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

fn pointer_to(path: &Path) -> String {
    let mut pointer = String::from("#");
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => push_segment(&mut pointer, &index.to_string()),
            Segment::Map { key } => push_segment(&mut pointer, key),
            Segment::Enum { variant } => push_segment(&mut pointer, variant),
            Segment::Unknown => {}
        }
    }
    pointer
}

/// Appends one reference token, escaped as RFC 6901 sections 3 and 6 ask for in a URI fragment.
pub fn push_segment(pointer: &mut String, token: &str) {
    pointer.push('/');
    for byte in token.bytes() {
        match byte {
            b'~' => pointer.push_str("~0"),
            b'/' => pointer.push_str("~1"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => pointer.push(byte as char),
            other => pointer.push_str(&format!("%{other:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        count: i64,
        text: String,
    }

    fn refusal(bytes: &[u8]) -> crate::problem::ProblemBody {
        parse::<Outer>(bytes).expect_err("must be refused").into_body()
    }

    #[test]
    fn a_wrong_type_is_pointed_at() {
        let body = refusal(br#"{"inner":[{"count":1,"text":"a"},{"count":"2","text":"b"}]}"#);
        assert_eq!((body.status, body.errors[0].pointer.as_str()), (422, "#/inner/1/count"));
    }

    #[test]
    fn an_unknown_field_is_pointed_at_with_its_name_escaped() {
        let body = refusal(br#"{"inner":[{"count":1,"te~/xt":"a"}]}"#);
        assert_eq!(
            (body.status, body.errors[0].pointer.as_str()),
            (422, "#/inner/0/te~0~1xt")
        );
    }

    #[test]
    fn a_number_beyond_the_integers_is_an_invalid_field() {
        assert_eq!(
            refusal(br#"{"inner":[{"count":9223372036854775808,"text":"a"}]}"#).status,
            422
        );
        assert_eq!(refusal(br#"{"inner":[{"count":1.5,"text":"a"}]}"#).status, 422);
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        let deep = "[".repeat(100_000);
        let cases: [&[u8]; 7] = [
            b"",
            b"{",
            br#"{"inner":[]} x"#,
            br#"{"inner":[{"count":1,"text":"\ud800"}]}"#,
            b"{\"inner\":[{\"count\":1,\"text\":\"\xff\"}]}",
            br#"{"inner":[{"count":1e999,"text":"a"}]}"#,
            deep.as_bytes(),
        ];
        for case in cases {
            let status = refusal(case).status;
            assert!(
                status == 400 || status == 422,
                "{status} for {:?}",
                String::from_utf8_lossy(&case[..case.len().min(60)])
            );
        }
        assert_eq!(
            refusal(br#"{"inner":[{"count":1,"text":"\ud800"}]}"#).kind,
            "/problems/malformed-json"
        );
    }

    #[test]
    fn a_missing_field_is_pointed_at() {
        let body = refusal(br#"{"inner":[{"count":1}]}"#);
        assert_eq!(
            (body.errors[0].pointer.as_str(), &*body.errors[0].detail),
            ("#/inner/0/text", "is missing")
        );
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        assert_eq!(refusal(br#"{"inner":[],"inner":[]}"#).status, 422);
    }
}
