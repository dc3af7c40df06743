//! `GET /v1/invoices/{id}/pdf`

use axum::extract::State;
use axum::response::Response;
use row_id::InvoiceId;
use store::invoices::FullInvoice;
use store::{Answer, ReadToken, StoreError};

use crate::app::App;
use crate::auth::{Caller, Read};
use crate::openapi::headers::ReadHeaders;
use crate::openapi::responses::GetInvoiceProblems;
use crate::problem::{Problem, catalogue};
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
    reply(value.ok_or(StoreError::InvoiceNotFound(id))?, token).await
}

/// The document of an invoice.
pub(super) async fn reply(_full: FullInvoice, _token: ReadToken) -> Result<Response, Problem> {
    Err(Problem::new(&catalogue::INTERNAL, "The document could not be made."))
}
