//! `make test`: everything that must hold. `make check` is its quick part.

mod charts;
mod golang;
mod libtest;
mod lints;
mod moves;
mod servers;
mod suites;

pub(crate) use moves::{Load, Seeds, bench_scale_out, test_moves};

use std::process::ExitCode;

use anyhow::Result;
use hermetic_cluster::Instance;
use hermetic_cluster::tools::{self, Tools};

use self::servers::Servers;
use self::suites::{END_TO_END_DEADLINE, Environment};
use crate::cargo::Programs;
use crate::place::Place;
use crate::stage::{Runner, Stage};
use crate::workspace::Workspace;
use crate::{images, instances, prerequisites};

/// Runs every check and test, on a cluster of its own beside a running `make up`.
///
/// The order is that of the cheapest refusal first; what takes minutes comes once, and everything after it shares it.
pub(crate) fn everything(workspace: &Workspace) -> Result<ExitCode> {
    let mut run = Runner::new("test", workspace)?;
    let instance = instances::test()?;
    let ready = run.stage("prerequisites", Some(()), |stage, ()| prerequisites::ensure(stage));
    run.stage("formatting", Some(()), |stage, ()| lints::formatting(stage, workspace));
    let built = run.stage("programs, tests and lints", Some(()), |stage, ()| {
        suites::build_all(stage, workspace)
    });
    let built = built.as_ref();
    run.stage("dependencies", Some(()), |stage, ()| {
        lints::dependencies(stage, workspace)
    });

    let images = run.stage("images", built.zip(ready), |stage, (built, _)| {
        images::build(stage, workspace, &built.programs, false)
    });
    let servers = run.stage("test servers", images.as_ref(), |stage, images| {
        Servers::start(stage, images)
    });
    run.stage(
        "unit and property tests",
        built.zip(servers.as_ref()),
        |stage, (built, servers)| {
            built.unit.run_unit(stage, workspace, &servers.environment());
            Ok(())
        },
    );
    if let (Some(servers), Some(images)) = (servers, &images) {
        run.stage("test servers away", Some(servers), |stage, servers| {
            servers.stop(stage, images.store())
        });
    }

    let tools = run.stage("kubernetes tools", ready, |stage, _| {
        Ok(tools::build(&stage.progress())?)
    });
    run.stage("Go tests", ready, |stage, ready| golang::test(stage, workspace, ready));
    let place = run.stage("cluster", tools.as_ref(), |stage, tools| {
        start_afresh(stage, tools, &instance)
    });
    chart_stages(&mut run, workspace, tools.as_ref(), place.as_ref());
    let supplied = run.stage(
        "import",
        place.as_ref().zip(images.as_ref()),
        |stage, (place, images)| {
            place.supply(stage, images)?;
            Ok(place)
        },
    );
    run.stage("end-to-end tests", built.zip(supplied), |stage, (built, place)| {
        let environment = end_to_end_environment(workspace, place, &instance)?;
        built.end_to_end.run(stage, END_TO_END_DEADLINE, &environment, None);
        Ok(())
    });
    // The place holds the instance's lock.
    drop(place);
    run.stage("cluster away", tools, |stage, _| Ok(instance.stop(&stage.progress())?));
    Ok(close(&run))
}

/// Formatting, lints and the tests that need no cluster, for the time between two edits.
pub(crate) fn check(workspace: &Workspace) -> Result<ExitCode> {
    let mut run = Runner::new("check", workspace)?;
    run.stage("formatting", Some(()), |stage, ()| lints::formatting(stage, workspace));
    let suites = run.stage("tests and lints", Some(()), |stage, ()| {
        suites::build_unit(stage, workspace)
    });
    let ready = run.stage("prerequisites", Some(()), |stage, ()| {
        prerequisites::ensure_for_images(stage)
    });
    let images = run.stage("images of the servers", ready, |stage, _| {
        images::build_servers(stage, workspace)
    });
    let servers = run.stage("test servers", images.as_ref(), |stage, images| {
        Servers::start(stage, images)
    });
    run.stage(
        "unit and property tests",
        suites.as_ref().zip(servers.as_ref()),
        |stage, (suites, servers)| {
            suites.run_unit(stage, workspace, &servers.environment());
            Ok(())
        },
    );
    if let (Some(servers), Some(images)) = (servers, &images) {
        run.stage("test servers away", Some(servers), |stage, servers| {
            servers.stop(stage, images.store())
        });
    }
    Ok(close(&run))
}

fn chart_stages(run: &mut Runner, workspace: &Workspace, tools: Option<&Tools>, place: Option<&Place>) {
    run.stage("helm lint", tools, |stage, tools| charts::lint(stage, workspace, tools));
    run.stage("values schema", tools, |stage, tools| {
        charts::refuse_bad_values(stage, workspace, tools)
    });
    run.stage("manifests drift", tools, |stage, tools| {
        charts::drift(stage, workspace, tools)
    });
    run.stage("manifests validation", tools.zip(place), |stage, (tools, place)| {
        charts::validate(stage, workspace, tools, place)
    });
}

/// What is checked of the charts alone, on the test cluster, which is left running.
pub(crate) fn charts(workspace: &Workspace) -> Result<ExitCode> {
    let mut run = Runner::new("charts", workspace)?;
    let instance = instances::test()?;
    let ready = run.stage("prerequisites", Some(()), |stage, ()| prerequisites::ensure(stage));
    let tools = run.stage("kubernetes tools", ready, |stage, _| {
        Ok(tools::build(&stage.progress())?)
    });
    let place = run.stage("cluster", tools.as_ref(), |stage, tools| {
        Place::hermetic(stage, tools, &instance)
    });
    chart_stages(&mut run, workspace, tools.as_ref(), place.as_ref());
    Ok(close(&run))
}

/// The end-to-end tests alone, those whose names contain `filter`, on the test cluster as it runs. It is left running:
/// the next call begins where this one ended.
pub(crate) fn end_to_end(workspace: &Workspace, filter: Option<&str>) -> Result<ExitCode> {
    let mut run = Runner::new("e2e", workspace)?;
    let instance = instances::test()?;
    let built = run.stage("programs, tests and lints", Some(()), |stage, ()| {
        suites::build_all(stage, workspace)
    });
    let programs = built.as_ref().map(|built| built.programs);
    let place = running_cluster(&mut run, workspace, &instance, programs);
    run.stage("end-to-end tests", built.zip(place), |stage, (built, place)| {
        let environment = end_to_end_environment(workspace, &place, &instance)?;
        built.end_to_end.run(stage, END_TO_END_DEADLINE, &environment, filter);
        Ok(())
    });
    Ok(close(&run))
}

/// The test cluster as it runs, or a new one, with images of these programs.
fn running_cluster(
    run: &mut Runner,
    workspace: &Workspace,
    instance: &Instance,
    programs: Option<Programs>,
) -> Option<Place> {
    let ready = run.stage("prerequisites", programs, |stage, _| prerequisites::ensure(stage));
    let images = run.stage("images", programs.zip(ready), |stage, (programs, _)| {
        images::build(stage, workspace, &programs, false)
    });
    let place = run.stage("cluster", ready, |stage, _| {
        Place::hermetic(stage, &tools::build(&stage.progress())?, instance)
    });
    run.stage("import", place.zip(images), |stage, (place, images)| {
        place.supply(stage, &images)?;
        Ok(place)
    })
}

/// Keeps the test servers running, for `cargo test` of one crate.
pub(crate) fn servers(workspace: &Workspace) -> Result<ExitCode> {
    let mut run = Runner::new("servers", workspace)?;
    let ready = run.stage("prerequisites", Some(()), |stage, ()| {
        prerequisites::ensure_for_images(stage)
    });
    let images = run.stage("images of the servers", ready, |stage, _| {
        images::build_servers(stage, workspace)
    });
    let servers = run.stage("test servers", images.as_ref(), |stage, images| {
        Servers::start(stage, images)
    });
    let Some(mut servers) = servers else {
        return Ok(close(&run));
    };
    println!("\nUntil Ctrl-C:");
    servers
        .environment()
        .iter()
        .for_each(|(name, value)| println!("export {name}={value}"));
    servers.wait()?;
    Ok(ExitCode::FAILURE)
}

/// A cluster without anything of an earlier, perhaps interrupted, run.
fn start_afresh(stage: &Stage, tools: &Tools, instance: &Instance) -> Result<Place> {
    if instance.status()?.exists {
        stage.note("removing what an earlier run left behind");
        instance.stop(&stage.progress())?;
    }
    Place::hermetic(stage, tools, instance)
}

fn end_to_end_environment(workspace: &Workspace, place: &Place, instance: &Instance) -> Result<Environment> {
    let mut environment = Environment::new();
    let kubeconfig = place.kubeconfig().map(|path| path.display().to_string());
    environment.extend(kubeconfig.map(|kubeconfig| ("RINGWRIGHT_E2E_KUBECONFIG", kubeconfig)));
    environment.insert("RINGWRIGHT_E2E_INSTANCE", instance.name().to_owned());
    // The tests share one platform, and there are two cores.
    environment.insert("RUST_TEST_THREADS", "1".to_owned());
    environment.insert(
        "RINGWRIGHT_E2E_CHARTS",
        workspace.root().join("charts").display().to_string(),
    );
    Ok(environment)
}

/// The summary, and alone on the last line what all suites came to.
fn close(run: &Runner) -> ExitCode {
    let passed = run.summary();
    let tally = run.tally();
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if passed && tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
