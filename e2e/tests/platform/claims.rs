//! One email address belongs to one user, over all shards.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::api::Customer;
use e2e::{Api, Platform, Reply, await_condition, eventually};
use futures::future::join_all;
use kube::ResourceExt;
use serde_json::Value;

const RACES: usize = 10;
const RACERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn of_users_racing_for_one_address_exactly_one_wins() -> Result<()> {
    let platform = Platform::shared().await?;
    let api = platform.api().await?;
    for _ in 0..RACES {
        let prize = Customer::new();
        let racers = (0..RACERS).map(|racer| {
            let (api, mut body) = (api.clone(), prize.body());
            body["mobile_number"] = Customer::new().mobile.into();
            let key = format!("race-{racer}-{}", prize.email);
            async move { create(&api, &key, &body).await }
        });
        let mut winners = 0;
        for reply in join_all(racers).await {
            let reply = reply?;
            match reply.status.as_u16() {
                201 => winners += 1,
                409 => ensure!(
                    reply.problem()? == "contact-taken",
                    "lost for another reason: {}",
                    reply.text
                ),
                other => anyhow::bail!("a racer got {other}: {}", reply.text),
            }
        }
        ensure!(winners == 1, "{winners} of {RACERS} racers won one address");
    }
    Ok(())
}

/// Asks for a user until it is decided: who waits too long for another's claim, or for a shard, is told to come again.
async fn create(api: &Api, key: &str, body: &Value) -> Result<Reply> {
    eventually("the decision about a user", PATIENCE, || async {
        let reply = api.post("/v1/users", key, Some(body)).await?;
        let waits = ["contact-claim-pending", "idempotency-key-in-use"];
        let is_open = reply.problem().is_ok_and(|problem| waits.contains(&problem.as_str()));
        ensure!(reply.status != 503 && !is_open, "{}: {}", reply.status, reply.text);
        Ok(reply)
    })
    .await
}

/// The API dies while users are being created. Whatever step it had reached, a repeat under the same key ends with one
/// user, who has the address.
#[tokio::test]
async fn a_creation_cut_off_by_the_death_of_the_api_is_finished_by_its_repeat() -> Result<()> {
    let platform = Platform::shared().await?;
    let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
    let customers: Vec<Customer> = (0..40).map(|_| Customer::new()).collect();
    let api = platform.api().await?;
    let first = customers.iter().map(|customer| api.create_user(customer));
    let pods = kubernetes
        .pods(namespace, "app.kubernetes.io/name=ringwright-order-api")
        .await?;
    let kill = async {
        // In the middle of forty creations at once; which steps are cut off differs from run to run.
        tokio::time::sleep(Duration::from_millis(15)).await;
        let mut processes = 0;
        for pod in &pods {
            processes += kubernetes.kill_pod(namespace, &pod.name_any()).await?;
        }
        ensure!(processes > 0, "no process of the API ran");
        anyhow::Ok(())
    };
    let (first, killed) = tokio::join!(join_all(first), kill);
    killed?;

    for (customer, first) in customers.iter().zip(first) {
        let repeated = await_condition("the repeat to be answered", PATIENCE, || async {
            Ok(platform.api().await?.create_user(customer).await.ok())
        })
        .await?;
        if let Ok(first) = first {
            ensure!(first == repeated, "a repeat made another user: {first} and {repeated}");
        }
        let mut thief = Customer::new().body();
        thief["email_address"] = customer.email.clone().into();
        let key = format!("thief-{}", customer.email);
        let refused = create(&platform.api().await?, &key, &thief).await?;
        ensure!(
            refused.problem()? == "contact-taken",
            "the address was free: {}",
            refused.text
        );
    }
    Ok(())
}
