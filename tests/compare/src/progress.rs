//! Lines of layers' progress, which come in whatever order the layers take.

use std::collections::BTreeMap;

use crate::Ids;

/// States that a small layer may pass before anybody looks: dockerd tells only the latest of them.
const PASSING: [&str; 3] = ["Verifying Checksum", "Waiting", "Download complete"];

/// Each run of `ID: state` lines becomes one line a layer, with its states in the order in which they came: sorted by id,
/// or by states where the two sides' ids are not the same.
pub fn by_layer(text: &str, ids: Ids) -> String {
    let mut out = String::new();
    let mut layers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    // A last line that is none of progress writes out what is gathered.
    for line in text.lines().map(Some).chain([None]) {
        if let Some((id, state)) = line.and_then(layer) {
            let states = layers.entry(id).or_default();
            if !PASSING.contains(&state) {
                states.push(state);
            }
            continue;
        }
        let gathered = std::mem::take(&mut layers).into_iter();
        let mut gathered: Vec<_> = gathered.map(|(id, states)| (states.join(", "), id)).collect();
        if ids == Ids::Kept {
            gathered.sort_by_key(|(_, id)| *id);
        } else {
            gathered.sort();
        }
        for (states, id) in gathered {
            out.push_str(&format!("{id}: {states}\n"));
        }
        if let Some(line) = line {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn layer(line: &str) -> Option<(&str, &str)> {
    let (id, state) = line.split_once(": ")?;
    (id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some((id, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_keep_their_own_order() {
        let text = "latest: Pulling from a\n0123456789ab: Pulling fs layer\nabcdef012345: Pulling fs layer\n\
                    abcdef012345: Waiting\nabcdef012345: Pull complete\n0123456789ab: Pull complete\nDigest: x\n";
        let expected = "latest: Pulling from a\n0123456789ab: Pulling fs layer, Pull complete\n\
                        abcdef012345: Pulling fs layer, Pull complete\nDigest: x\n";
        assert_eq!(by_layer(text, Ids::Kept), expected);
        assert_eq!(by_layer("hello\n", Ids::Kept), "hello\n");
        let pushed = "0123456789ab: Pushed\nabcdef012345: Layer already exists\n";
        let by_state = "abcdef012345: Layer already exists\n0123456789ab: Pushed\n";
        assert_eq!(by_layer(pushed, Ids::Kept), pushed);
        assert_eq!(by_layer(pushed, Ids::Blanked), by_state);
    }
}
