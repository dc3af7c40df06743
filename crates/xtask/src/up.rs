//! `make up` and `make down`: from nothing to an order with its email and text message, and back to nothing.

use std::process::ExitCode;

use anyhow::Result;
use hermetic_cluster::tools;
use installation::charts::RELEASE;

use crate::cargo::Profile;
use crate::place::{On, Place};
use crate::sample_order::Receipt;
use crate::stage::{Runner, Stage};
use crate::workspace::Workspace;
use crate::{api_key, cargo, images, instances, platform, prerequisites, sample_order};

/// Brings everything up, or up to date, and places one order.
pub(crate) fn up(workspace: &Workspace, on: On, registry: Option<String>) -> Result<ExitCode> {
    let mut run = Runner::new("up", workspace)?;
    let ready = run.stage("prerequisites", Some(()), |stage, ()| {
        images::check_recipes(workspace)?;
        match on {
            On::Hermetic => prerequisites::ensure(stage),
            On::Kind | On::CurrentContext => prerequisites::ensure_for_images(stage),
        }
    });
    // Who has a cluster and a registry means to keep it; the others want to see something soon.
    let profile = match on {
        On::Hermetic | On::Kind => Profile::Dev,
        On::CurrentContext => Profile::Release,
    };
    let programs = run.stage("programs", ready, |stage, _| {
        cargo::build_programs(stage, workspace, profile)
    });
    let images = run.stage("images", programs.as_ref(), |stage, programs| {
        images::build(stage, workspace, programs, false)
    });
    let place = run.stage("cluster", ready, |stage, _| match on {
        On::Hermetic => Place::hermetic(stage, &tools::build(&stage.progress())?, &instances::up()?),
        On::Kind => Place::kind(stage, workspace.cache()),
        On::CurrentContext => Place::current_context(registry),
    });
    let supplied = run.stage(
        "images into the cluster",
        place.zip(images),
        |stage, (place, images)| {
            place.supply(stage, &images)?;
            Ok((place, images))
        },
    );
    let platform = run.stage("platform", supplied, |stage, (place, images)| {
        let platform = platform::install(stage, workspace, place)?;
        platform::restart_outdated(stage, &platform.place, &images)?;
        Ok(platform)
    });
    let sample = run.stage("sample cluster", platform.as_ref(), |stage, platform| {
        platform::make_sample_cluster(stage, workspace, platform)
    });
    let receipt = run.stage("sample order", sample.and(platform.as_ref()), sample_order::place_one);
    let passed = run.summary();
    if let (Some(receipt), Some(platform)) = (&receipt, &platform) {
        tell(receipt, &platform.place);
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(receipt: &Receipt, place: &Place) {
    println!("\nOrder {} of user {}", receipt.order_id, receipt.user_id);
    println!("  shard       {}", receipt.shard);
    for email in &receipt.emails {
        println!("  email       \"{}\" to {}", email.subject, email.to);
        for attachment in &email.attachments {
            println!(
                "              with {} ({} bytes)",
                attachment.name,
                attachment.content.len()
            );
        }
    }
    for text in &receipt.texts {
        println!("  SMS         \"{}\" to {}", text.body, text.to);
    }
    let kubectl = place.typed_kubectl();
    println!("\nGo on with");
    println!(
        "  {kubectl} get ordercluster,ordershard,pods --namespace {}",
        platform::NAMESPACE
    );
    println!(
        "  {kubectl} port-forward --namespace {} service/{} 8080:http     # then http://127.0.0.1:8080/docs",
        platform::NAMESPACE,
        platform::ORDER_API
    );
    println!(
        "  {}     # the API's bearer key",
        api_key::ApiKey::reveal_command(place)
    );
    println!("  make down");
}

/// Removes what `up` and an interrupted `test` left on the machine. Caches stay: they make the next start fast.
pub(crate) fn down(workspace: &Workspace, on: On) -> Result<ExitCode> {
    let mut run = Runner::new("down", workspace)?;
    match on {
        On::Hermetic => {
            for (name, instance) in [
                ("cluster of make up", instances::up()?),
                ("cluster of make test", instances::test()?),
            ] {
                run.stage(name, Some(()), |stage, ()| Ok(instance.stop(&stage.progress())?));
            }
            run.stage("test servers", Some(()), |stage, ()| images::sweep(stage, workspace));
        }
        On::Kind => {
            run.stage("platform", Some(()), |stage, ()| {
                uninstall(stage, &Place::kind(stage, workspace.cache())?)
            });
        }
        On::CurrentContext => {
            let anywhere = Some(String::new());
            run.stage("platform", Some(()), |stage, ()| {
                uninstall(stage, &Place::current_context(anywhere)?)
            });
        }
    }
    let passed = run.summary();
    println!("caches stay in {} and target/", workspace.cache().display());
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cluster is somebody else's: only what was installed goes, and a namespace only if `make up` made it. The resource
/// definitions stay, for with them would go every OrderCluster of every namespace. Order matters: the operator must still
/// be there to let the OrderCluster go.
fn uninstall(stage: &Stage, place: &Place) -> Result<()> {
    let namespace = ["--namespace", platform::NAMESPACE];
    let gone = "--ignore-not-found";
    stage.run(
        place
            .kubectl(&["delete", platform::CLUSTER, gone, "--timeout=180s"])
            .args(namespace),
    )?;
    stage.run(place.helm(&["uninstall", RELEASE, gone, "--wait"]).args(namespace))?;
    let ours = format!(
        "--selector={}=true,kubernetes.io/metadata.name={}",
        platform::MADE_BY_UP,
        platform::NAMESPACE
    );
    stage.run(&mut place.kubectl(&["delete", "namespace", &ours, gone, "--timeout=180s"]))?;
    stage.note(
        "the resource definitions stay: `helm uninstall ringwright-crds`, then `kubectl delete crd` removes them",
    );
    Ok(())
}
