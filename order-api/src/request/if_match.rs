//! Entity tags of rows and the header `If-Match` (RFC 9110, sections 8.8.3 and 13.1.1).

use axum::extract::FromRequestParts;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};

use crate::app::App;
use crate::problem::{Problem, catalogue};

/// The entity tag of a row at this version. Strong: equal tags mean the same stored row.
pub fn etag(version: i64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"v{version}\"")).unwrap_or(HeaderValue::from_static("\"v0\""))
}

/// The versions a change may be based on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: whichever is current.
    Any,
    /// One of these versions; tags that are not ours match nothing and are left out.
    Versions(Vec<i64>),
}

impl IfMatch {
    /// Whether the condition holds for a row at `version`.
    pub fn holds_for(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }

    /// The one version the store is to compare with; `None` for any. Of several the first: the store compares with one,
    /// and no client of this API has a use for more. Tags that are not ours become a version that no row has.
    pub fn expected(&self) -> Option<i64> {
        match self {
            Self::Any => None,
            Self::Versions(versions) => Some(versions.first().copied().unwrap_or(0)),
        }
    }

    /// The refusal when it does not hold.
    pub fn failed() -> Problem {
        Problem::new(
            &catalogue::PRECONDITION_FAILED,
            "The entity tag in If-Match is not that of the current version.",
        )
    }

    fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        if !headers.contains_key(IF_MATCH) {
            return Ok(None);
        }
        let mut versions = Vec::new();
        for header in headers.get_all(IF_MATCH) {
            for tag in header.to_str().map_err(|_| malformed())?.split(',').map(str::trim) {
                match tag {
                    "*" => return Ok(Some(Self::Any)),
                    _ => versions.extend(version_of(tag)?),
                }
            }
        }
        Ok(Some(Self::Versions(versions)))
    }
}

/// The version in one entity tag. A weak tag never matches here (RFC 9110, section 8.8.3.2), nor does a foreign one.
fn version_of(tag: &str) -> Result<Option<i64>, Problem> {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    let inner = opaque
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or_else(malformed)?;
    if opaque != tag {
        return Ok(None);
    }
    Ok(inner.strip_prefix('v').and_then(|digits| digits.parse().ok()))
}

fn malformed() -> Problem {
    Problem::new(
        &catalogue::MALFORMED_REQUEST,
        "If-Match is not a list of entity tags in quotes.",
    )
}

/// `If-Match` where it is required.
#[derive(Debug)]
pub struct RequiredIfMatch(pub IfMatch);

/// `If-Match` where it may be left out.
#[derive(Debug)]
pub struct OptionalIfMatch(pub Option<IfMatch>);

impl FromRequestParts<App> for RequiredIfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        IfMatch::from_headers(&parts.headers)?.map(Self).ok_or_else(|| {
            Problem::new(
                &catalogue::PRECONDITION_REQUIRED,
                "Send the ETag of the version this change is based on in If-Match.",
            )
        })
    }
}

impl FromRequestParts<App> for OptionalIfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        IfMatch::from_headers(&parts.headers).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &'static str) -> Result<Option<IfMatch>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(IF_MATCH, HeaderValue::from_static(value));
        IfMatch::from_headers(&headers)
    }

    #[test]
    fn a_tag_matches_the_version_it_was_made_of() {
        let mut headers = HeaderMap::new();
        headers.insert(IF_MATCH, etag(7));
        let condition = IfMatch::from_headers(&headers).unwrap().unwrap();
        assert!(condition.holds_for(7));
        assert!(!condition.holds_for(8));
    }

    #[test]
    fn lists_and_the_star_are_understood() {
        assert!(parse("\"v1\", \"v2\"").unwrap().unwrap().holds_for(2));
        assert!(parse("*").unwrap().unwrap().holds_for(99));
    }

    #[test]
    fn weak_and_foreign_tags_match_nothing() {
        assert!(!parse("W/\"v1\"").unwrap().unwrap().holds_for(1));
        assert!(!parse("\"abc\"").unwrap().unwrap().holds_for(1));
    }

    #[test]
    fn a_tag_without_quotes_is_malformed() {
        assert_eq!(parse("v1").unwrap_err().kind().slug, "malformed-request");
    }
}
