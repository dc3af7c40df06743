//! `GET /v1/invoices/{id}`: as JSON, or as PDF when the client prefers that.

use axum::extract::State;
use axum::http::header::{ACCEPT, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use row_id::InvoiceId;
use store::{Answer, StoreError};

use super::{InvoiceView, pdf};
use crate::app::App;
use crate::auth::{Caller, Read};
use crate::openapi::headers::ReadHeaders;
use crate::openapi::responses::GetInvoiceProblems;
use crate::problem::{Problem, catalogue};
use crate::reply;
use crate::request::{PathId, ReadContext};

/// The forms of an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Pdf,
}

/// Reads an invoice; `Accept: application/pdf` gets the document.
#[utoipa::path(get, path = "/v1/invoices/{id}", tag = "invoices",
    params(("id" = uuid::Uuid, Path, description = "The invoice"), ReadHeaders),
    responses(
        (status = 200, description = "The invoice",
            content((InvoiceView = "application/json"), (Vec<u8> = "application/pdf")),
            headers(
                ("ETag" = String, description = "Its version"),
                ("Ringwright-Token" = String, description = "Covers this read"))),
        GetInvoiceProblems))]
pub async fn get_invoice(
    _: Caller<Read>,
    State(app): State<App>,
    PathId(id): PathId<InvoiceId>,
    ReadContext(at): ReadContext,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let form = preferred(&headers)?;
    let Answer { value, token } = app.store.get_invoice(id, &at).await?;
    let full = value.ok_or(StoreError::InvoiceNotFound(id))?;
    let mut response = match form {
        Form::Json => {
            let version = full.invoice.version;
            reply::read(
                &Answer {
                    value: InvoiceView::from(&full.invoice),
                    token,
                },
                Some(version),
            )?
        }
        Form::Pdf => pdf::document(full, token).await?,
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The form the client likes best (RFC 9110, section 12.5.1); JSON when it does not say, or likes both the same.
fn preferred(headers: &HeaderMap) -> Result<Form, Problem> {
    if !headers.contains_key(ACCEPT) {
        return Ok(Form::Json);
    }
    let accepted: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let accepted = accepted.join(",");
    let (json, pdf) = (
        quality(&accepted, "application/json"),
        quality(&accepted, "application/pdf"),
    );
    if json.max(pdf) <= 0.0 {
        let detail = "An invoice is to be had as application/json and as application/pdf.";
        return Err(Problem::new(&catalogue::NOT_ACCEPTABLE, detail));
    }
    Ok(if pdf > json { Form::Pdf } else { Form::Json })
}

/// The weight of a media type, that of the most specific range that covers it; 0 when none does.
fn quality(accepted: &str, media_type: &str) -> f32 {
    let ranges = accepted.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let specificity = match parts.next()?.to_ascii_lowercase().as_str() {
            "*/*" => 0,
            "application/*" => 1,
            name if name == media_type => 2,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((specificity, weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0))))
    });
    ranges
        .max_by_key(|(specificity, _)| *specificity)
        .map_or(0.0, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: Option<&'static str>) -> Option<Form> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        preferred(&headers).ok()
    }

    #[test]
    fn the_accepted_form_with_the_higher_weight_is_sent() {
        assert_eq!(form(None), Some(Form::Json));
        assert_eq!(form(Some("*/*")), Some(Form::Json));
        assert_eq!(form(Some("application/pdf")), Some(Form::Pdf));
        assert_eq!(form(Some("application/pdf, */*;q=0.1")), Some(Form::Pdf));
        assert_eq!(form(Some("application/pdf;q=0.5, application/json")), Some(Form::Json));
        assert_eq!(form(Some("*/*, application/json;q=0")), Some(Form::Pdf));
    }

    #[test]
    fn forms_there_are_not_are_refused() {
        assert_eq!(form(Some("text/html")), None);
        assert_eq!(form(Some("application/json;q=0, application/pdf;q=0")), None);
        assert_eq!(form(Some("application/pdf;q=abc")), None);
    }
}
