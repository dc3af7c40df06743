//! Every route, once: the router and the API's description are made of the same list.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware, routing};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::admission::admit;
use crate::app::App;
use crate::observe::observe;
use crate::openapi::Description;
use crate::problem::{Problem, catalogue, page};
use crate::{health, invoices, notifications, orders, reply, ring_view, users};

/// The service with everything around it.
pub fn router(app: App) -> Router {
    let document = description();
    Router::from(described_routes())
        .route_layer(middleware::from_fn_with_state(app.clone(), admit))
        // Added after the admission on purpose: probes and the documentation answer also under load.
        .merge(Router::from(meta_routes()))
        .route(
            "/openapi.json",
            routing::get(async move || reply::json(StatusCode::OK, &document)),
        )
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

/// The API's description.
pub fn description() -> OpenApi {
    described_routes().merge(meta_routes()).into_openapi()
}

fn described_routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(users::create::create_user))
        .routes(routes!(users::get::get_user, users::update::update_user))
        .routes(routes!(orders::create::create_order, orders::list::list_orders))
        .routes(routes!(orders::batch_create::batch_create_orders))
        .routes(routes!(orders::batch_get::batch_get_orders))
        .routes(routes!(orders::get::get_order))
        .routes(routes!(orders::process::process_order))
        .routes(routes!(orders::cancel::cancel_order))
        .routes(routes!(invoices::generate::generate_invoice))
        .routes(routes!(invoices::get::get_invoice))
        .routes(routes!(invoices::pdf::get_invoice_pdf))
        .routes(routes!(notifications::order_notifications))
        .routes(routes!(ring_view::get_ring))
}

fn meta_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(page::list_problems))
        .routes(routes!(page::explain_problem))
}

async fn no_route(_: Request) -> Problem {
    Problem::new(&catalogue::ROUTE_NOT_FOUND, "No route of this API matches the path.")
}

async fn no_method(request: Request) -> Problem {
    Problem::new(
        &catalogue::METHOD_NOT_ALLOWED,
        format!("This path does not take {}.", request.method()),
    )
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    Problem::new(&catalogue::INTERNAL, "The request could not be carried out.").into_response()
}
