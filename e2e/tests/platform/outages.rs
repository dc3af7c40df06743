//! The broker goes away in the middle of the day.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::api::{Api, Customer};
use e2e::{Platform, await_condition, inbox};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Patch, PatchParams};
use serde_json::json;

const CUSTOMERS: usize = 12;

#[tokio::test]
async fn while_the_broker_is_away_orders_are_accepted_and_every_message_arrives_once_afterwards() -> Result<()> {
    let platform = Platform::shared().await?;
    let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
    let api = platform.api().await?;

    scale_broker(&platform, 0).await?;
    kubernetes.kill_pod(namespace, "ringwright-rabbitmq-0").await?;
    await_condition("the broker to go", Duration::from_secs(90), || async {
        let pods = kubernetes
            .pods(namespace, "app.kubernetes.io/name=ringwright-rabbitmq")
            .await?;
        Ok(pods.is_empty().then_some(()))
    })
    .await?;
    let mut customers = Vec::new();
    for _ in 0..CUSTOMERS {
        customers.push(processed_order(&api).await?);
    }
    scale_broker(&platform, 1).await?;

    for customer in &customers {
        inbox::await_emails(kubernetes, namespace, &customer.email, 1).await?;
        inbox::await_texts(kubernetes, namespace, &customer.mobile, 1).await?;
    }
    await_empty_outbox(&platform).await?;
    let (emails, texts) = (
        inbox::emails(kubernetes, namespace).await?,
        inbox::texts(kubernetes, namespace).await?,
    );
    for customer in &customers {
        let emails = emails
            .iter()
            .filter(|email| email.to.eq_ignore_ascii_case(&customer.email))
            .count();
        let texts = texts.iter().filter(|text| text.to == customer.mobile).count();
        ensure!(
            (emails, texts) == (1, 1),
            "one customer got {emails} emails and {texts} texts for one order"
        );
    }
    Ok(())
}

async fn processed_order(api: &Api) -> Result<Customer> {
    let customer = Customer::new();
    let user = api.create_user(&customer).await?;
    let order = api.create_order(&user, "order").await?;
    api.post(&format!("/v1/orders/{order}/process"), "process", None)
        .await?
        .success()?;
    Ok(customer)
}

async fn scale_broker(platform: &Platform, replicas: i32) -> Result<()> {
    let brokers = platform.kubernetes.objects::<StatefulSet>(&platform.namespace);
    let scale = json!({"spec": {"replicas": replicas}});
    brokers
        .patch("ringwright-rabbitmq", &PatchParams::default(), &Patch::Merge(&scale))
        .await?;
    Ok(())
}

/// Nothing is left to be published, so nothing more can arrive.
async fn await_empty_outbox(platform: &Platform) -> Result<()> {
    for ordinal in 0..3 {
        let shard = format!("{}-{ordinal}", e2e::platform::CLUSTER);
        let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
        let pool = e2e::database::connect(kubernetes, namespace, e2e::platform::CLUSTER, &shard).await?;
        await_condition("an empty outbox", inbox::PATIENCE, || async {
            let (left,): (i64,) = sqlx::query_as("SELECT count(*) FROM ringwright.outbox")
                .fetch_one(&pool)
                .await?;
            Ok((left == 0).then_some(()))
        })
        .await?;
    }
    Ok(())
}
