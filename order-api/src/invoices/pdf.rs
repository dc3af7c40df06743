//! `GET /v1/invoices/{id}/pdf`

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, ETAG};
use axum::response::Response;
use row_id::InvoiceId;
use store::invoices::{FullInvoice, Invoice};
use store::{Answer, ReadToken, StoreError};

use crate::app::App;
use crate::auth::{Caller, Read};
use crate::openapi::headers::ReadHeaders;
use crate::openapi::responses::GetInvoiceProblems;
use crate::problem::{Problem, catalogue};
use crate::reply;
use crate::request::if_match::etag;
use crate::request::{PathId, ReadContext};

/// Reads an invoice as PDF, for links that cannot set an Accept header.
#[utoipa::path(get, path = "/v1/invoices/{id}/pdf", tag = "invoices",
    params(("id" = uuid::Uuid, Path, description = "The invoice"), ReadHeaders),
    responses(
        (status = 200, description = "The document", body = Vec<u8>, content_type = "application/pdf", headers(
            ("ETag" = String, description = "The invoice's version"),
            ("Ringwright-Token" = String, description = "Covers this read"))),
        GetInvoiceProblems))]
pub async fn get_invoice_pdf(
    _: Caller<Read>,
    State(app): State<App>,
    PathId(id): PathId<InvoiceId>,
    ReadContext(at): ReadContext,
) -> Result<Response, Problem> {
    let Answer { value, token } = app.store.get_invoice(id, &at).await?;
    document(value.ok_or(StoreError::InvoiceNotFound(id))?, token).await
}

/// The document of an invoice.
pub(super) async fn document(full: FullInvoice, token: ReadToken) -> Result<Response, Problem> {
    let invoice = full.invoice;
    let (id, version, file) = (
        invoice.invoice_id,
        invoice.version,
        format!("invoice-{}.pdf", invoice.number),
    );
    // Milliseconds of pure computing, which would hold up the requests of this thread.
    let printed = tokio::task::spawn_blocking(move || print(&invoice)).await;
    let document = printed.map_err(|panic| panic.to_string()).flatten().map_err(|error| {
        tracing::error!(error, invoice = %id, "an invoice cannot be printed");
        Problem::new(&catalogue::INTERNAL, "The document could not be made.")
    })?;
    let mut response = Response::new(Body::from(document));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/pdf"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ETAG, etag(version));
    // An invoice's number is of digits and a hyphen: it needs no quoting.
    if let Ok(disposition) = HeaderValue::from_str(&format!("inline; filename=\"{file}\"")) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    reply::cover(headers, &token);
    Ok(response)
}

fn print(invoice: &Invoice) -> Result<Vec<u8>, String> {
    let document = invoice_pdf::stored(&invoice.number, invoice.created_at, &invoice.invoice_details);
    invoice_pdf::render(&document.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}
