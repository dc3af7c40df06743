//! Clusters come and go: over kept volumes, and with an operator that dies in the middle.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::OrderCluster;
use e2e::kubernetes::Kubernetes;
use e2e::platform::{self, CLUSTER, OPERATOR_NAMESPACE, await_ready, make_cluster};
use e2e::{await_condition, database, with_temp_ns};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use kube::api::ListParams;
use row_id::UserId;

const DEADLINE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_cluster_created_again_over_kept_volumes_has_every_row_and_its_ring() -> Result<()> {
    let kubernetes = Kubernetes::connect().await?;
    platform::install_operator(&kubernetes).await?;
    with_temp_ns(&kubernetes, "adoption", |namespace| async {
        let namespace = namespace;
        make_cluster(&kubernetes, &namespace, &platform::cluster(2, 1)).await?;
        await_ready(&kubernetes, &namespace, CLUSTER).await?;
        let users = insert_users(&kubernetes, &namespace).await?;
        let tokens = ring_tokens(&kubernetes, &namespace).await?;

        kubernetes
            .delete_and_wait::<OrderCluster>(&namespace, CLUSTER, DEADLINE)
            .await?;
        await_condition("the database pods to go", DEADLINE, || async {
            let pods = kubernetes.pods(&namespace, "ringwright.dev/cluster=shop").await?;
            Ok(pods.is_empty().then_some(()))
        })
        .await?;
        make_cluster(&kubernetes, &namespace, &platform::cluster(2, 1)).await?;
        await_ready(&kubernetes, &namespace, CLUSTER).await?;

        ensure!(
            ring_tokens(&kubernetes, &namespace).await? == tokens,
            "the ring changed"
        );
        let mut found = stored_users(&kubernetes, &namespace).await?;
        found.sort();
        ensure!(found == users, "{} of {} users are there", found.len(), users.len());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cluster_deleted_with_policy_delete_leaves_nothing() -> Result<()> {
    let kubernetes = Kubernetes::connect().await?;
    platform::install_operator(&kubernetes).await?;
    with_temp_ns(&kubernetes, "removal", |namespace| async {
        let namespace = namespace;
        let mut cluster = platform::cluster(1, 1);
        cluster["spec"]["deletionPolicy"] = "Delete".into();
        make_cluster(&kubernetes, &namespace, &cluster).await?;
        await_ready(&kubernetes, &namespace, CLUSTER).await?;
        kubernetes
            .delete_and_wait::<OrderCluster>(&namespace, CLUSTER, DEADLINE)
            .await?;
        let all = ListParams::default().labels("ringwright.dev/cluster=shop");
        await_condition("volumes, credentials and ring to go", DEADLINE, || async {
            let claims = kubernetes
                .objects::<PersistentVolumeClaim>(&namespace)
                .list(&all)
                .await?
                .items
                .len();
            let secrets = kubernetes.objects::<Secret>(&namespace).list(&all).await?.items.len();
            let maps = kubernetes
                .objects::<ConfigMap>(&namespace)
                .list(&all)
                .await?
                .items
                .len();
            Ok((claims + secrets + maps == 0).then_some(()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_operator_killed_while_it_makes_a_cluster_finishes_after_its_restart() -> Result<()> {
    let kubernetes = Kubernetes::connect().await?;
    platform::install_operator(&kubernetes).await?;
    with_temp_ns(&kubernetes, "restart", |namespace| async {
        let namespace = namespace;
        make_cluster(&kubernetes, &namespace, &platform::cluster(2, 1)).await?;
        // Three deaths: at once, with the first objects made, and with the first database running.
        for selector in ["", "ringwright.dev/shard=shop-0", "ringwright.dev/role=master"] {
            if !selector.is_empty() {
                await_condition(&format!("a pod of {selector}"), DEADLINE, || async {
                    Ok((!kubernetes.pods(&namespace, selector).await?.is_empty()).then_some(()))
                })
                .await?;
            }
            let operators = kubernetes
                .pods(OPERATOR_NAMESPACE, "app.kubernetes.io/name=ringwright-operator")
                .await?;
            for operator in &operators {
                kubernetes.kill_pod(OPERATOR_NAMESPACE, &operator.name_any()).await?;
            }
        }
        await_ready(&kubernetes, &namespace, CLUSTER).await?;
        insert_users(&kubernetes, &namespace).await?;
        Ok(())
    })
    .await
}

/// Writes users to both shards as the fence allows, and returns their ids in order.
async fn insert_users(kubernetes: &Kubernetes, namespace: &str) -> Result<Vec<String>> {
    let mut users = Vec::new();
    for shard in ["shop-0", "shop-1"] {
        let pool = database::connect(kubernetes, namespace, CLUSTER, shard).await?;
        let mut here = 0;
        while here < 20 {
            let id = UserId::generate().to_string();
            let inserted = sqlx::query(
                "INSERT INTO shop.users (user_id, first_name, last_name, email_address, mobile_number, locale, time_zone,
                     created_at, updated_at)
                 VALUES ($1::uuid, 'Ada', 'Lovelace', 'ada@example.com', '+4915112345678', 'en', 'UTC', now(), now())",
            )
            .bind(&id)
            .execute(&pool)
            .await;
            match inserted {
                Ok(_) => {
                    here += 1;
                    users.push(id);
                }
                Err(refused) => {
                    let code = refused
                        .as_database_error()
                        .and_then(|error| error.code())
                        .context("no answer")?;
                    ensure!(code == "SR001", "refused with {code}: {refused}");
                }
            }
        }
    }
    users.sort();
    Ok(users)
}

async fn stored_users(kubernetes: &Kubernetes, namespace: &str) -> Result<Vec<String>> {
    let mut users = Vec::new();
    for shard in ["shop-0", "shop-1"] {
        let pool = database::connect(kubernetes, namespace, CLUSTER, shard).await?;
        let rows: Vec<(String,)> = sqlx::query_as("SELECT user_id::text FROM shop.users")
            .fetch_all(&pool)
            .await?;
        users.extend(rows.into_iter().map(|row| row.0));
    }
    Ok(users)
}

async fn ring_tokens(kubernetes: &Kubernetes, namespace: &str) -> Result<Vec<u8>> {
    let ring = kubernetes
        .objects::<ConfigMap>(namespace)
        .get(&format!("{CLUSTER}-ring"))
        .await?;
    let tokens = ring
        .binary_data
        .unwrap_or_default()
        .remove("tokens")
        .context("the ring has no tokens")?;
    Ok(tokens.0)
}
