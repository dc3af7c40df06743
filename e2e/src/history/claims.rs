//! Invariant 3 for addresses and numbers: every user has one of each, and nobody else has them, for a claim's key is
//! their hash.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::contents::{Claim, Contact, Contents};
use super::verdict::{Kind, Violation};

const CONTACTS: [Contact; 2] = [Contact::Email, Contact::Mobile];

/// Every stored user has claimed one address and one number, and what is held is a stored user's. The load changes
/// nobody's, so there is no reason for more.
///
/// A claim that is pending is as good for its user as one that is held: whoever created the user died before that, and
/// the janitor will hold it. Without a user it is the trace of a creation that came to nothing, which the janitor removes.
pub(super) fn check(contents: &Contents) -> Vec<Violation> {
    let mut claims: HashMap<(Uuid, Contact), Vec<&Claim>> = HashMap::new();
    for claim in &contents.claims {
        claims.entry((claim.user, claim.contact)).or_default().push(claim);
    }
    let mut found = Vec::new();
    for user in &contents.users {
        for contact in CONTACTS {
            let claims = claims.get(&(user.key, contact)).map_or(&[][..], Vec::as_slice);
            if claims.len() != 1 {
                let count = claims.len();
                let kind = if count == 0 {
                    Kind::LostWrite
                } else {
                    Kind::WrittenTwice
                };
                let mut proof = vec![user.line()];
                proof.extend(claims.iter().map(|claim| claim.line()));
                let what = format!("user {} has {count} claims of an {contact:?} contact, not 1", user.key);
                found.push(Violation::new(kind, what, proof));
            }
        }
    }
    let users: HashSet<Uuid> = contents.users.iter().map(|user| user.key).collect();
    for claim in contents.claims.iter().filter(|claim| claim.is_held) {
        if !users.contains(&claim.user) {
            let what = format!("claim {} is held for user {}, who is not there", claim.key, claim.user);
            found.push(Violation::new(Kind::WrittenByNobody, what, vec![claim.line()]));
        }
    }
    found
}
