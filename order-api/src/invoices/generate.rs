//! `POST /v1/orders/{id}/invoice`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use row_id::OrderId;
use store::StoredResponse;
use store::invoices::Invoice;
use store::orders::Order;
use store::users::User;

use super::InvoiceView;
use super::details::InvoiceDetails;
use crate::app::App;
use crate::auth::{Caller, Write};
use crate::openapi::headers::IdempotencyHeader;
use crate::openapi::responses::GenerateInvoiceProblems;
use crate::problem::Problem;
use crate::reply;
use crate::request::{IdempotencyKey, NoBody, PathId};

/// Generates the invoice of an order; its customer is told.
#[utoipa::path(post, path = "/v1/orders/{id}/invoice", tag = "invoices",
    params(("id" = uuid::Uuid, Path, description = "The order"), IdempotencyHeader),
    responses(
        (status = 201, description = "The invoice is generated", body = InvoiceView, headers(
            ("Location" = String, description = "Where it can be read, as JSON and PDF"),
            ("ETag" = String, description = "Its version"),
            ("Ringwright-Token" = String, description = "Covers this write"))),
        GenerateInvoiceProblems))]
pub async fn generate_invoice(
    caller: Caller<Write>,
    State(app): State<App>,
    PathId(order): PathId<OrderId>,
    key: IdempotencyKey,
    _: NoBody,
) -> Result<Response, Problem> {
    let key = key.stands_for(caller.client(), "invoices.generate", order, &());
    let (store, seller) = (app.store.clone(), app.seller.clone());
    // A struct of strings and numbers: turning it into JSON cannot fail.
    let details = move |order: &Order, user: &User| {
        serde_json::to_value(InvoiceDetails::new(order, user, &seller)).unwrap_or_default()
    };
    app.write(async move { store.generate_invoice(key, order, details, render).await })
        .await
}

fn render(invoice: &Invoice) -> StoredResponse {
    let location = format!("/v1/invoices/{}", invoice.invoice_id);
    reply::render(
        StatusCode::CREATED,
        Some(location),
        invoice.version,
        &InvoiceView::from(invoice),
    )
}
