//! Entity tags of rows and the header `If-Match` (RFC 9110, sections 8.8.3 and 13.1.1).

use axum::extract::FromRequestParts;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use store::BasedOn;

use crate::app::App;
use crate::problem::{Problem, catalogue};

/// The entity tag of a row at this version. Strong: equal tags mean the same stored row.
pub fn etag(version: i64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"v{version}\"")).unwrap_or(HeaderValue::from_static("\"v0\""))
}

/// The condition a client has put on a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: whichever version is current.
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

    /// The condition as the store takes it, to check it in the transaction of the change.
    pub fn based_on(self) -> BasedOn {
        match self {
            Self::Any => BasedOn::Any,
            Self::Versions(versions) => BasedOn::OneOf(versions),
        }
    }

    /// The refusal when it does not hold.
    pub fn failed() -> Problem {
        Problem::new(
            &catalogue::PRECONDITION_FAILED,
            "The entity tag in If-Match is not that of the current version.",
        )
    }

    /// Several fields are one list (RFC 9110, section 5.3), and the star stands alone.
    fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let fields = headers.get_all(IF_MATCH).iter();
        let fields: Vec<&[u8]> = fields.map(|field| field.as_bytes().trim_ascii()).collect();
        match fields.as_slice() {
            [] => Ok(None),
            [b"*"] => Ok(Some(Self::Any)),
            _ => {
                let mut versions = Vec::new();
                for field in fields {
                    read_tags(field, &mut versions).ok_or_else(malformed)?;
                }
                Ok(Some(Self::Versions(versions)))
            }
        }
    }
}

/// Adds the versions that a list of entity tags names; `None` if it is no such list. A list may have empty elements
/// (RFC 9110, section 5.6.1), and a tag may have commas in it.
fn read_tags(mut list: &[u8], versions: &mut Vec<i64>) -> Option<()> {
    loop {
        list = match list.trim_ascii_start() {
            [] => return Some(()),
            [b',', rest @ ..] => rest,
            [b'W', b'/', b'"', rest @ ..] => {
                // Weak tags never match (RFC 9110, section 13.1.1).
                let (_, rest) = opaque_tag(rest)?;
                rest
            }
            [b'"', rest @ ..] => {
                let (tag, rest) = opaque_tag(rest)?;
                versions.extend(version_of(tag));
                rest
            }
            _ => return None,
        };
    }
}

/// What stands before the closing quote, and the rest of the list behind it.
fn opaque_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = text.splitn(2, |byte| *byte == b'"');
    let (tag, rest) = (parts.next()?, parts.next()?.trim_ascii_start());
    let of_tag_characters = tag.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..));
    (of_tag_characters && matches!(rest, [] | [b',', ..])).then_some((tag, rest))
}

/// The version of one of our tags. They are compared by character: `v07` is none of ours.
fn version_of(tag: &[u8]) -> Option<i64> {
    let version: i64 = std::str::from_utf8(tag.strip_prefix(b"v")?).ok()?.parse().ok()?;
    (tag == format!("v{version}").as_bytes()).then_some(version)
}

fn malformed() -> Problem {
    Problem::new(
        &catalogue::MALFORMED_REQUEST,
        "If-Match is neither `*` nor a list of entity tags in quotes.",
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
    fn any_tag_of_a_list_may_match() {
        for list in [
            "\"v1\", \"v2\"",
            "\"v2\",\"v1\"",
            ", \"v1\" ,, \"v2\",",
            "\"a,b\",W/\"v1\",\"v1\",\"v2\"",
        ] {
            let condition = parse(list).unwrap().unwrap();
            assert!(condition.holds_for(1) && condition.holds_for(2), "{list}");
            assert!(!condition.holds_for(3), "{list}");
        }
        let mut headers = HeaderMap::new();
        headers.append(IF_MATCH, etag(1));
        headers.append(IF_MATCH, etag(2));
        let condition = IfMatch::from_headers(&headers).unwrap().unwrap();
        assert_eq!(condition.based_on(), BasedOn::OneOf(vec![1, 2]));
    }

    #[test]
    fn the_star_matches_whatever_is_there_and_stands_alone() {
        assert!(parse(" * ").unwrap().unwrap().holds_for(99));
        assert_eq!(parse("*").unwrap().unwrap().based_on(), BasedOn::Any);
        assert!(parse("*, \"v1\"").is_err());
        assert!(parse("\"v1\", *").is_err());
        assert!(!parse("\"*\"").unwrap().unwrap().holds_for(1));
    }

    #[test]
    fn weak_and_foreign_tags_and_an_empty_list_match_nothing() {
        for list in [
            "W/\"v1\"", "\"abc\"", "\"v01\"", "\"v+1\"", "\"V1\"", "\"1\"", "\"\"", "", ",",
        ] {
            assert_eq!(parse(list).unwrap(), Some(IfMatch::Versions(Vec::new())), "{list}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_malformed() {
        for list in [
            "v1",
            "\"v1",
            "\"v1\" \"v2\"",
            "\"v1\"x",
            "w/\"v1\"",
            "W/v1",
            "\"v 1\"",
            "\"v1\", v2",
        ] {
            assert_eq!(parse(list).unwrap_err().kind().slug, "malformed-request", "{list}");
        }
    }
}
