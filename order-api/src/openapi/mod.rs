//! The API's description (OpenAPI 3.1). Routes and description come from the same list (`routes.rs`), so neither can
//! have what the other lacks.

pub mod headers;
pub mod responses;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// Everything of the description that is no route.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ringwright order API",
        description = include_str!("description.md"),
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "users", description = "The shop's customers"),
        (name = "orders", description = "Orders, and what becomes of them"),
        (name = "invoices", description = "One invoice an order, as JSON and PDF"),
        (name = "notifications", description = "What the customer was told"),
        (name = "ring", description = "How the data lies on the shards"),
        (name = "meta", description = "Health, problem types")
    ),
    security(("api_key" = [])),
    components(schemas(crate::problem::ProblemBody)),
    modifiers(&ApiKeyScheme)
)]
pub struct Description;

struct ApiKeyScheme;

impl Modify for ApiKeyScheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key; each has some of the scopes read, write and admin."))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}
