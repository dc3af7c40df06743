//! `GET /problems` and `GET /problems/{slug}`: what a problem type means and what to do about it, for people as a page
//! and for programs as JSON.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Problem, ProblemType, catalogue};

/// What a problem type means.
#[derive(Serialize, ToSchema)]
pub struct ProblemExplanation {
    /// The type URI.
    #[serde(rename = "type")]
    #[schema(example = "/problems/overloaded")]
    kind: String,
    /// The HTTP status it comes with.
    status: u16,
    /// A short summary.
    title: &'static str,
    /// What has happened.
    meaning: &'static str,
    /// What the client does about it.
    remedy: &'static str,
}

impl From<&ProblemType> for ProblemExplanation {
    fn from(kind: &ProblemType) -> Self {
        Self {
            kind: format!("/problems/{}", kind.slug),
            status: kind.status,
            title: kind.title,
            meaning: kind.meaning,
            remedy: kind.remedy,
        }
    }
}

/// All problem types.
#[utoipa::path(get, path = "/problems", tag = "meta", security(()), responses((status = 200, description = "Every problem type", content(
    (Vec<ProblemExplanation> = "application/json"), (String = "text/html")))))]
pub async fn list_problems(headers: HeaderMap) -> Response {
    if !wants_html(&headers) {
        return Json(
            catalogue::ALL
                .iter()
                .map(|kind| ProblemExplanation::from(*kind))
                .collect::<Vec<_>>(),
        )
        .into_response();
    }
    let rows: String = catalogue::ALL
        .iter()
        .map(|kind| {
            format!(
                "<li><a href=\"/problems/{0}\">{1} {0}</a>: {2}</li>",
                kind.slug, kind.status, kind.title
            )
        })
        .collect();
    Html(page("Problem types", &format!("<ul>{rows}</ul>"))).into_response()
}

/// One problem type: what it means and what to do.
#[utoipa::path(get, path = "/problems/{slug}", tag = "meta", security(()),
    params(("slug" = String, Path, description = "The last part of a problem's type")),
    responses(
        (status = 200, description = "What the problem type means", content(
            (ProblemExplanation = "application/json"), (String = "text/html"))),
        (status = 404, description = "No such problem type", body = super::ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn explain_problem(
    slug: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kind = slug
        .ok()
        .and_then(|Path(slug)| catalogue::by_slug(&slug))
        .ok_or_else(|| Problem::new(&catalogue::PROBLEM_NOT_FOUND, "No problem type has this name."))?;
    if !wants_html(&headers) {
        return Ok(Json(ProblemExplanation::from(kind)).into_response());
    }
    let body = format!(
        "<p><code>/problems/{}</code>, status {}</p><h2>What it means</h2><p>{}</p><h2>What to do</h2><p>{}</p>\
         <p><a href=\"/problems\">All problem types</a></p>",
        kind.slug, kind.status, kind.meaning, kind.remedy
    );
    Ok(Html(page(kind.title, &body)).into_response())
}

/// Browsers name `text/html` in Accept, programs do not.
fn wants_html(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

/// A page around `body`, which is made of the catalogue's own text only: nothing of a request is ever put into it.
fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>body{{font:1rem/1.5 system-ui;max-width:44rem;margin:3rem auto;padding:0 1rem}}</style>\
         <h1>{title}</h1>{body}</html>"
    )
}
