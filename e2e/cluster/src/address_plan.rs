//! Which addresses and names an instance uses. A slot number is all that tells instances apart, so that any two of
//! them are disjoint by arithmetic.

use std::net::Ipv4Addr;

use crate::NodeName;

/// How many instances fit on a machine.
pub(crate) const SLOTS: u8 = 16;

/// The addresses and names of one slot.
///
/// ```text
/// 10.200.S.0/24       the wire: .1 the host with the control plane, .11 to .13 the nodes
/// 10.(208+S).N.0/24   the pods of node N
/// 10.(224+S).0.0/16   Services
/// 127.88.S.1          what only the host itself may reach (etcd, health)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressPlan {
    slot: u8,
}

impl AddressPlan {
    pub(crate) fn new(slot: u8) -> Self {
        assert!(slot < SLOTS, "slot {slot} of {SLOTS}");
        Self { slot }
    }

    pub(crate) fn slot(self) -> u8 {
        self.slot
    }

    /// The host's address on the wire: API server and name service.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, self.slot, 1)
    }

    pub(crate) fn node(self, node: NodeName) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, self.slot, 10 + node.number())
    }

    pub(crate) fn wire(self) -> String {
        format!("10.200.{}.0/24", self.slot)
    }

    pub(crate) fn pods(self) -> String {
        format!("10.{}.0.0/16", 208 + self.slot)
    }

    pub(crate) fn node_pods(self, node: NodeName) -> String {
        format!("10.{}.{}.0/24", 208 + self.slot, node.number())
    }

    pub(crate) fn services(self) -> String {
        format!("10.{}.0.0/16", 224 + self.slot)
    }

    /// The ClusterIP of the Service `kubernetes`: the first of the range, by Kubernetes' own rule.
    pub(crate) fn api_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 224 + self.slot, 0, 1)
    }

    pub(crate) fn loopback(self) -> Ipv4Addr {
        Ipv4Addr::new(127, 88, self.slot, 1)
    }

    pub(crate) fn api_server(self) -> String {
        format!("https://{}:6443", self.gateway())
    }

    pub(crate) fn bridge(self) -> String {
        format!("rw{}", self.slot)
    }

    /// The host's end of a node's cable.
    pub(crate) fn cable(self, node: NodeName) -> String {
        format!("rw{}n{}", self.slot, node.number())
    }

    /// The name of a node's network namespace and of its cgroups.
    pub(crate) fn node_scope(self, node: NodeName) -> String {
        format!("rw{}-node{}", self.slot, node.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First and last address of a range in CIDR notation.
    fn bounds(range: &str) -> (u32, u32) {
        let (address, length) = range.split_once('/').unwrap();
        let first = u32::from(address.parse::<Ipv4Addr>().unwrap());
        (first, first | (u32::MAX >> length.parse::<u32>().unwrap()))
    }

    fn contains(range: &str, address: Ipv4Addr) -> bool {
        let (first, last) = bounds(range);
        (first..=last).contains(&u32::from(address))
    }

    #[test]
    fn no_two_instances_share_an_address_or_a_name() {
        let mut ranges = Vec::new();
        let mut names = std::collections::HashSet::new();
        for plan in (0..SLOTS).map(AddressPlan::new) {
            ranges.extend([plan.wire(), plan.pods(), plan.services()].map(|range| bounds(&range)));
            assert!(names.insert(plan.bridge()) && names.insert(plan.loopback().to_string()));
            for node in NodeName::all() {
                assert!(names.insert(plan.cable(node)) && names.insert(plan.node_scope(node)));
            }
        }
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ranges:?}");
    }

    #[test]
    fn every_address_lies_in_its_range() {
        for plan in (0..SLOTS).map(AddressPlan::new) {
            assert!(contains(&plan.wire(), plan.gateway()));
            assert!(contains(&plan.services(), plan.api_service()));
            for node in NodeName::all() {
                assert!(contains(&plan.wire(), plan.node(node)));
                let (first, last) = bounds(&plan.node_pods(node));
                assert!(contains(&plan.pods(), first.into()) && contains(&plan.pods(), last.into()));
            }
        }
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        let plan = AddressPlan::new(SLOTS - 1);
        assert!(NodeName::all().all(|node| plan.cable(node).len() < 16) && plan.bridge().len() < 16);
    }
}
