//! `GET /v1/ring`: the ring and the shards as this instance sees them.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use ring::{Ordinal, POSITIONS, Ring, ShardState};
use serde::{Deserialize, Serialize};
use store::{Member, MemberRole, ShardHealth};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Admin, Caller};
use crate::openapi::responses::RingProblems;
use crate::problem::Problem;
use crate::reply;
use crate::request::QueryParams;

/// How much of the ring.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RingParams {
    /// Whether to list every range; there are dozens a shard.
    #[serde(default)]
    ranges: bool,
}

/// The ring as this instance sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct RingView {
    /// How often it was published.
    epoch: u64,
    /// The shards in the order of their ordinals.
    shards: Vec<ShardView>,
    /// Who owns which positions, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ranges: Option<Vec<RangeView>>,
}

/// A shard.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shard)]
struct ShardView {
    /// Name of the OrderShard.
    #[schema(example = "shop-0")]
    name: String,
    ordinal: u16,
    /// `joining`, `active` or `leaving`.
    #[schema(example = "active")]
    state: &'static str,
    /// The part of all positions it owns, 0 to 1.
    share: f64,
    /// Its members as last seen.
    members: Vec<MemberView>,
}

/// A member of a shard.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Member)]
struct MemberView {
    /// As the ring names it.
    #[schema(example = "shop-0-0.shop-0.shop.svc:5432")]
    host: String,
    /// `master`, `replica` or `unreachable`.
    #[schema(example = "master")]
    role: &'static str,
    /// Its timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    term: Option<u32>,
    /// How old the sample is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sampled_ms_ago: Option<u64>,
}

/// The positions `lo <= p < hi`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Range)]
struct RangeView {
    lo: u64,
    hi: u64,
    /// Ordinal of the owner.
    shard: u16,
}

impl RingView {
    fn new(ring: &Ring, mut health: Vec<ShardHealth>, with_ranges: bool) -> Self {
        let ranges = ring.ranges();
        let mut owned: HashMap<Ordinal, u64> = HashMap::new();
        for (range, owner) in &ranges {
            *owned.entry(*owner).or_default() += range.len();
        }
        let shards = ring.shards().iter().map(|shard| {
            let members = health.iter_mut().find(|health| health.shard == shard.ordinal);
            ShardView {
                name: shard.name.clone(),
                ordinal: shard.ordinal.get(),
                state: match shard.state {
                    ShardState::Joining => "joining",
                    ShardState::Active => "active",
                    ShardState::Leaving => "leaving",
                },
                share: owned.get(&shard.ordinal).copied().unwrap_or(0) as f64 / POSITIONS as f64,
                members: members
                    .map(|health| health.members.drain(..).map(MemberView::from).collect())
                    .unwrap_or_default(),
            }
        });
        Self {
            epoch: ring.epoch().get(),
            shards: shards.collect(),
            ranges: with_ranges.then(|| {
                let view = |&(range, owner): &(ring::Range, Ordinal)| RangeView {
                    lo: range.lo,
                    hi: range.hi,
                    shard: owner.get(),
                };
                ranges.iter().map(view).collect()
            }),
        }
    }
}

impl From<Member> for MemberView {
    fn from(member: Member) -> Self {
        Self {
            host: member.host,
            role: match member.role {
                MemberRole::Master => "master",
                MemberRole::Replica => "replica",
                MemberRole::Unreachable => "unreachable",
            },
            term: member.term.map(|term| term.0),
            sampled_ms_ago: member.sampled_ago.map(|age| age.as_millis() as u64),
        }
    }
}

/// Shows the ring and the shards as this instance sees them.
#[utoipa::path(get, path = "/v1/ring", tag = "ring", params(RingParams),
    responses((status = 200, description = "The ring", body = RingView), RingProblems))]
pub async fn get_ring(
    _: Caller<Admin>,
    State(app): State<App>,
    QueryParams(params): QueryParams<RingParams>,
) -> Result<Response, Problem> {
    reply::json(
        StatusCode::OK,
        &RingView::new(&app.store.ring(), app.store.health(), params.ranges),
    )
}
