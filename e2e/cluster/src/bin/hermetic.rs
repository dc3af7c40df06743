//! Runs hermetic clusters by hand.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use hermetic_cluster::{Error, Instance, NodeName, Progress, Result, prerequisites};

const USAGE: &str = "usage: hermetic [--name NAME] COMMAND

  up                            install what is missing, build, start, wait for three Ready nodes
  down                          remove everything of the cluster
  status                        what is there, as JSON
  kubeconfig                    print the path of the kubeconfig
  import ARCHIVE...             put images on all nodes
  node start|stop|cut|restore N
  kubectl ARGUMENTS...
  helm ARGUMENTS...

NAME tells clusters apart and is \"up\" unless given.";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut name = "up".to_owned();
    if args.first().is_some_and(|arg| arg == "--name") && args.len() > 1 {
        name = args[1].clone();
        args.drain(..2);
    }
    match Instance::new(&name).and_then(|instance| execute(&instance, &args)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(instance: &Instance, args: &[String]) -> Result<ExitCode> {
    let progress = Progress::stderr();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["up"] => {
            prerequisites::install(&progress)?;
            instance.start(&progress)?;
        }
        ["down"] => instance.stop(&progress)?,
        ["status"] => {
            let status = instance.status()?;
            println!(
                "{}",
                serde_json::to_string_pretty(&status).map_err(|error| Error::Invalid(error.to_string()))?
            );
        }
        ["kubeconfig"] => println!("{}", instance.attach()?.kubeconfig_path().display()),
        ["import", ref archives @ ..] => {
            let cluster = instance.attach()?;
            archives
                .iter()
                .try_for_each(|archive| cluster.import_image(Path::new(archive), &progress))?;
        }
        ["node", action, node] => act_on_node(instance, action, NodeName::parse(node)?)?,
        ["kubectl", ref rest @ ..] => return forward(instance.attach()?.kubectl_command().args(rest)),
        ["helm", ref rest @ ..] => return forward(instance.attach()?.helm_command().args(rest)),
        _ => {
            eprintln!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn act_on_node(instance: &Instance, action: &str, node: NodeName) -> Result<()> {
    let cluster = instance.attach()?;
    match action {
        "start" => {
            cluster.start_node(node)?;
            cluster.wait_nodes_ready(Duration::from_secs(60))
        }
        "stop" => cluster.stop_node(node),
        "cut" => cluster.cut_node(node),
        "restore" => cluster.restore_node(node),
        _ => Err(Error::Invalid(format!(
            "nodes can start, stop, cut and restore, not {action:?}"
        ))),
    }
}

fn forward(command: &mut std::process::Command) -> Result<ExitCode> {
    let status = command
        .status()
        .map_err(|error| Error::Invalid(format!("{command:?}: {error}")))?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}
