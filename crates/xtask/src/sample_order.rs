//! One order, placed the way a shop's backend would, and followed to the customer's mailbox and telephone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use installation::mail::Email;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::mail;
use crate::place::Place;
use crate::platform::{NAMESPACE, ORDER_API, Platform, SMS_GATEWAY, retry};
use crate::port_forward::PortForward;
use crate::stage::Stage;

/// How long the event may take through broker, notifier and mail server.
const PATIENCE: Duration = Duration::from_secs(90);
/// The invoice's event and the processed order's: each sends one email and one text.
const EXPECTED: usize = 2;

/// What became of the order, as the receiving ends saw it.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) user_id: String,
    pub(crate) order_id: String,
    pub(crate) shard: String,
    pub(crate) emails: Vec<Email>,
    pub(crate) texts: Vec<Text>,
}

/// A text message as the gateway took it.
#[derive(Debug, Deserialize)]
pub(crate) struct Text {
    pub(crate) to: String,
    pub(crate) body: String,
}

/// Creates a user and an order, has the invoice made and the order processed, and waits for what the customer gets.
pub(crate) fn place_one(stage: &Stage, platform: &Platform) -> Result<Receipt> {
    let place = &platform.place;
    let api = OrderApi::connect(platform)?;
    // Contacts are unique, so each run is a customer of its own: one second, one customer.
    let run = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock stands before 1970")?
        .as_secs();
    let email_address = format!("ada.{run}@example.com");
    let mobile_number = format!("+49151{:08}", run % 100_000_000);
    let user = json!({
        "first_name": "Ada", "last_name": "Lovelace", "locale": "en",
        "email_address": email_address, "mobile_number": mobile_number,
    });
    // The first request may meet a program that has only just seen its ring.
    let user_id = retry(Duration::from_secs(60), || {
        api.post("/v1/users", &format!("sample-user-{run}"), Some(&user))
    })?;
    let user_id = text(&user_id, "user_id")?;
    let lines = json!([{"sku": "TEA-1", "description": "Teapot", "quantity": 2, "unit_price_minor": 1999}]);
    let order = json!({"currency": "EUR", "order_details": {"lines": lines, "reference": format!("sample-{run}")}});
    let order = api.post(
        &format!("/v1/users/{user_id}/orders"),
        &format!("sample-order-{run}"),
        Some(&order),
    )?;
    let order_id = text(&order, "order_id")?;
    stage.note(format!("placed order {order_id}"));
    api.post(
        &format!("/v1/orders/{order_id}/invoice"),
        &format!("sample-invoice-{run}"),
        None,
    )?;
    api.post(
        &format!("/v1/orders/{order_id}/process"),
        &format!("sample-process-{run}"),
        None,
    )?;

    let shard = shard_of(stage, place, &order_id)?;
    let emails = arrived("emails", || mail::received(stage, place, &email_address))?;
    let gateway = PortForward::open(place, SMS_GATEWAY, "http")?;
    let texts = arrived("text messages", || texts_to(&gateway, &mobile_number))?;
    Ok(Receipt {
        user_id,
        order_id,
        shard,
        emails,
        texts,
    })
}

/// Waits until all that was promised has come.
fn arrived<T>(what: &str, mut look: impl FnMut() -> Result<Vec<T>>) -> Result<Vec<T>> {
    retry(PATIENCE, || {
        let found = look()?;
        if found.len() < EXPECTED {
            bail!("{} of {EXPECTED} {what} have arrived", found.len());
        }
        Ok(found)
    })
}

/// Asks each shard's master for the order: where it is, rather than where it should be.
fn shard_of(stage: &Stage, place: &Place, order_id: &str) -> Result<String> {
    let pods =
        "--output=jsonpath={range .items[*]}{.metadata.name} {.metadata.labels.ringwright\\.dev/shard}{'\\n'}{end}";
    let masters = [
        "get",
        "pods",
        "--namespace",
        NAMESPACE,
        "--selector=ringwright.dev/role=master",
        pods,
    ];
    let masters = stage.read(&mut place.kubectl(&masters))?;
    let query = format!("SELECT count(*) FROM shop.orders WHERE order_id = '{order_id}'");
    let mut owners = Vec::new();
    for (pod, shard) in masters.lines().filter_map(|line| line.split_once(' ')) {
        let ask = [
            "exec",
            "--namespace",
            NAMESPACE,
            pod,
            "--",
            "psql",
            "-U",
            "postgres",
            "-d",
            "orders",
            "-Atc",
            &query,
        ];
        if stage.read(&mut place.kubectl(&ask))?.trim() == "1" {
            owners.push(shard.to_owned());
        }
    }
    match owners.as_slice() {
        [shard] => Ok(shard.clone()),
        _ => bail!("the order is to be on exactly one shard, but was found on {owners:?}"),
    }
}

fn texts_to(gateway: &PortForward, number: &str) -> Result<Vec<Text>> {
    let url = format!("{}/messages", gateway.base_url());
    let mut response = ureq::get(&url)
        .call()
        .context("asking the SMS gateway what it received")?;
    let texts: Vec<Text> = response
        .body_mut()
        .read_json()
        .context("reading what the SMS gateway received")?;
    Ok(texts.into_iter().filter(|text| text.to == number).collect())
}

/// The order API, through a port on this machine.
struct OrderApi<'a> {
    forward: PortForward,
    platform: &'a Platform,
}

impl<'a> OrderApi<'a> {
    fn connect(platform: &'a Platform) -> Result<Self> {
        Ok(Self {
            forward: PortForward::open(&platform.place, ORDER_API, "http")?,
            platform,
        })
    }

    /// A request that must succeed; a refusal is told in the API's own words.
    fn post(&self, path: &str, idempotency_key: &str, body: Option<&Value>) -> Result<Value> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        let request = agent
            .post(format!("{}{path}", self.forward.base_url()))
            .header("authorization", self.platform.api_key.bearer())
            .header("idempotency-key", idempotency_key);
        let response = match body {
            Some(body) => request.send_json(body),
            None => request.send_empty(),
        };
        let mut response = response.with_context(|| format!("POST {path}"))?;
        let answer = response
            .body_mut()
            .read_to_string()
            .with_context(|| format!("reading the answer to POST {path}"))?;
        if !response.status().is_success() {
            bail!("POST {path} was refused with {}: {answer}", response.status());
        }
        serde_json::from_str(&answer).with_context(|| format!("the answer to POST {path} is no JSON"))
    }
}

fn text(value: &Value, field: &str) -> Result<String> {
    value[field]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("the answer has no {field}: {value}"))
}
