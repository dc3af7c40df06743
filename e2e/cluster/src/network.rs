//! The wire between host and nodes: one bridge, and for each node a network namespace with a cable to it.
//!
//! Nodes have no default route, and the host sends the cluster's ranges into a black hole where it has no better
//! route. So no packet from or for a pod or a Service leaves the machine, whatever else is configured on it.

use std::path::{Path, PathBuf};

use crate::address_plan::AddressPlan;
use crate::command::{ip, run, system};
use crate::{NodeName, Result};

/// A black hole must lose against the connected route of the bridge, which has metric 0.
const LAST_METRIC: u32 = 4096;

/// Whether anything of the slot is there.
pub(crate) fn exists(plan: AddressPlan) -> bool {
    link_exists(&plan.bridge())
}

/// Makes what is missing, black holes first.
pub(crate) fn make(plan: AddressPlan) -> Result<()> {
    for range in ranges(plan) {
        ip(
            "keeping the cluster's addresses inside the machine",
            &format!("route replace blackhole {range} metric {LAST_METRIC}"),
        )?;
    }
    let bridge = plan.bridge();
    let attempt = "making the cluster's bridge";
    if !link_exists(&bridge) {
        ip(attempt, &format!("link add {bridge} type bridge"))?;
    }
    ip(attempt, &format!("address replace {}/24 dev {bridge}", plan.gateway()))?;
    ip(attempt, &format!("link set {bridge} up"))?;
    NodeName::all().try_for_each(|node| make_node(plan, node))
}

fn make_node(plan: AddressPlan, node: NodeName) -> Result<()> {
    let attempt = format!("connecting {node}");
    let (scope, cable, bridge) = (plan.node_scope(node), plan.cable(node), plan.bridge());
    let (address, gateway) = (plan.node(node), plan.gateway());
    if !namespace_path(plan, node).exists() {
        ip(&attempt, &format!("netns add {scope}"))?;
    }
    if !link_exists(&cable) {
        ip(
            &attempt,
            &format!("link add {cable} type veth peer name eth0 netns {scope}"),
        )?;
    }
    ip(&attempt, &format!("link set {cable} master {bridge} up"))?;
    let inside = |args: &str| ip(&attempt, &format!("-n {scope} {args}"));
    inside("link set lo up")?;
    inside(&format!("address replace {address}/24 dev eth0"))?;
    inside("link set eth0 up")?;
    // A Service address needs some route until kube-proxy has rewritten it; the host drops what was not.
    inside(&format!("route replace {} via {gateway}", plan.services()))?;
    for other in NodeName::all().filter(|other| *other != node) {
        inside(&format!(
            "route replace {} via {}",
            plan.node_pods(other),
            plan.node(other)
        ))?;
    }
    let namespace = format!("--net={}", namespace_path(plan, node).display());
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    run(&attempt, &mut system("nsenter", [&namespace, "sh", "-c", forward]))?;
    ip(
        &attempt,
        &format!("route replace {} via {address}", plan.node_pods(node)),
    )
    .map(drop)
}

/// Removes all of it. Idempotent.
pub(crate) fn remove(plan: AddressPlan) -> Result<()> {
    let attempt = "removing the cluster's network";
    for node in NodeName::all() {
        if link_exists(&plan.cable(node)) {
            ip(attempt, &format!("link delete {}", plan.cable(node)))?;
        }
        if namespace_path(plan, node).exists() {
            ip(attempt, &format!("netns delete {}", plan.node_scope(node)))?;
        }
    }
    if link_exists(&plan.bridge()) {
        ip(attempt, &format!("link delete {}", plan.bridge()))?;
    }
    let holes = ip(attempt, "route show type blackhole")?;
    for range in ranges(plan) {
        if holes.lines().any(|line| line.split(' ').any(|word| word == range)) {
            ip(attempt, &format!("route delete blackhole {range} metric {LAST_METRIC}"))?;
        }
    }
    Ok(())
}

/// Whether the node's cable is plugged in.
pub(crate) fn connected(plan: AddressPlan, node: NodeName) -> bool {
    let flags = Path::new("/sys/class/net").join(plan.cable(node)).join("flags");
    let Ok(flags) = std::fs::read_to_string(flags) else {
        return false;
    };
    // IFF_UP
    u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 1 == 1)
}

/// Plugs the node's cable in or pulls it out.
pub(crate) fn connect(plan: AddressPlan, node: NodeName, connected: bool) -> Result<()> {
    let (attempt, state) = if connected {
        ("connecting", "up")
    } else {
        ("cutting off", "down")
    };
    ip(
        &format!("{attempt} {node}"),
        &format!("link set {} {state}", plan.cable(node)),
    )
    .map(drop)
}

/// The node's network namespace.
pub(crate) fn namespace_path(plan: AddressPlan, node: NodeName) -> PathBuf {
    Path::new("/run/netns").join(plan.node_scope(node))
}

fn ranges(plan: AddressPlan) -> [String; 3] {
    [plan.wire(), plan.pods(), plan.services()]
}

fn link_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}
