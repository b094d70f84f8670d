use crate::dialect::Dialect;
use crate::error::Error;
use crate::instruction::Instruction;
use crate::interpret;
use crate::parse;

const ALLOWED: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses the instructions of `commit --change` and `import --change`. Only those that change an
/// image's configuration are legal; each string may hold several lines.
pub fn parse_changes(changes: &[String]) -> Result<Vec<Instruction>, Error> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let source = changes.join("\n");
    let nodes = parse::nodes(&source, Dialect::Classic).map_err(|error| Error::Change(error.bare()))?.nodes;
    if let Some(node) = nodes.iter().find(|node| !ALLOWED.contains(&node.name.as_str())) {
        return Err(Error::Change(format!("{} is not a valid change command", node.name)));
    }
    nodes.iter().map(interpret::instruction).collect::<Result<_, _>>().map_err(|error| Error::Change(error.bare()))
}
