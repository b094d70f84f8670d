//! What builds have made, for later builds of the same client to stand on (`contexts = { base = "target:base" }` of bake).
//!
//! A client of BuildKit takes the definition that comes with a result and sends it back as an input of another build. Ours
//! only names the result: one operation, a source that nobody else can have, and the end that BuildKit's definitions have.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::Ref;
use bollard_buildkit_proto::pb;
use model::Digest;
use prost::Message as _;

use crate::app::lease::Lease;
use crate::app::{Failure, Outcome, lock, random_id};

const SCHEME: &str = "boxyard-result://";

/// Results of one connection's builds; their layers are kept until it closes.
#[derive(Default)]
pub struct Results {
    by_id: Mutex<HashMap<String, Made>>,
}

struct Made {
    image: proto::BuiltImage,
    /// Of all that one build has made.
    _lease: Arc<Lease>,
}

impl Results {
    /// Keeps what a build has made, whose layers are under the lease; gives what a client calls each.
    pub fn keep(&self, images: &[proto::BuiltImage], lease: Lease) -> Vec<Ref> {
        let lease = Arc::new(lease);
        let mut by_id = lock(&self.by_id);
        let keep = |image: &proto::BuiltImage| {
            let id = random_id();
            by_id.insert(id.clone(), Made { image: image.clone(), _lease: lease.clone() });
            Ref { def: Some(definition(&id)), id }
        };
        images.iter().map(keep).collect()
    }

    /// What these definitions, by the client's names for them, stand for.
    ///
    /// # Errors
    /// `Unimplemented` for a definition of the client's own, `NotFound` for a result of another connection.
    pub fn inputs<'a>(
        &self,
        definitions: impl IntoIterator<Item = (&'a String, &'a pb::Definition)>,
    ) -> Outcome<HashMap<String, proto::BuiltImage>> {
        let by_id = lock(&self.by_id);
        let find = |(name, definition): (&String, &pb::Definition)| {
            let id = named(definition).ok_or_else(|| {
                Failure::not_built(format!(
                    "input {name}: LLB definitions are not solved, only results of builds are taken"
                ))
            })?;
            let made = by_id.get(&id).ok_or_else(|| {
                Failure::not_found(format!("input {name}: no build of this connection has made {id}"))
            })?;
            Ok((name.clone(), made.image.clone()))
        };
        definitions.into_iter().map(find).collect()
    }
}

fn definition(id: &str) -> pb::Definition {
    let source = pb::SourceOp { identifier: format!("{SCHEME}{id}"), ..Default::default() };
    let source = pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() }.encode_to_vec();
    let digest = Digest::of(&source).to_string();
    let end = pb::Op { inputs: vec![pb::Input { digest: digest.clone(), index: 0 }], ..Default::default() };
    pb::Definition {
        def: vec![source, end.encode_to_vec()],
        metadata: BTreeMap::from([(digest, pb::OpMetadata::default())]),
        source: None,
    }
}

/// The result that a definition names, if it is one of [`definition`]'s.
fn named(definition: &pb::Definition) -> Option<String> {
    let [source, end] = definition.def.as_slice() else { return None };
    let ends_there =
        |op: &pb::Op| op.op.is_none() && op.inputs.iter().all(|input| input.digest == Digest::of(source).as_str());
    pb::Op::decode(end.as_slice()).ok().filter(ends_there)?;
    match pb::Op::decode(source.as_slice()).ok()?.op? {
        pb::op::Op::Source(source) => source.identifier.strip_prefix(SCHEME).map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_names_its_result_and_nothing_else() {
        let ours = definition("abc");
        assert_eq!(named(&ours).as_deref(), Some("abc"));
        assert!(ours.metadata.contains_key(Digest::of(&ours.def[0]).as_str()), "clients look for it");
        let foreign = pb::SourceOp { identifier: "docker-image://busybox".to_owned(), ..Default::default() };
        let foreign = pb::Op { op: Some(pb::op::Op::Source(foreign)), ..Default::default() }.encode_to_vec();
        let cut = pb::Definition { def: ours.def[..1].to_vec(), ..Default::default() };
        let changed = pb::Definition { def: vec![foreign, ours.def[1].clone()], ..Default::default() };
        let wrong = pb::Definition { def: vec![vec![0xff], vec![0xff]], ..Default::default() };
        for other in [cut, changed, wrong, pb::Definition::default()] {
            assert_eq!(named(&other), None, "{other:?}");
        }
    }

    #[test]
    fn inputs_are_results_of_the_same_connection() {
        let (results, name) = (Results::default(), "0-base".to_owned());
        let of = |definition: &pb::Definition| results.inputs([(&name, definition)]).map(drop).map_err(|why| why.kind);
        assert_eq!(of(&definition("abc")), Err(model::ErrorKind::NotFound));
        assert_eq!(of(&pb::Definition::default()), Err(model::ErrorKind::Unimplemented));
    }
}
