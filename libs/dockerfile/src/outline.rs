//! What a Dockerfile offers to who builds it: its targets, and what a target takes (`docker build --call`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::expand::Lexer;
use crate::graph::{Origin, StageGraph};
use crate::instruction::{Instruction, Kind, Stage};
use crate::mount::MountType;
use crate::parse::Dockerfile;
use crate::scope::{GlobalArg, Globals, Scope, described};

/// A stage as a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Empty for a stage without a name.
    pub name: String,
    pub default: bool,
    /// From the comment above its FROM.
    pub description: String,
    /// As written.
    pub base: String,
    /// As written, empty where there is none.
    pub platform: String,
    pub line: usize,
    pub end_line: usize,
}

/// What a target takes from outside, each in the order of lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    pub name: String,
    pub description: String,
    pub args: Vec<OutlineArg>,
    pub secrets: Vec<OutlineMount>,
    pub ssh: Vec<OutlineMount>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    pub name: String,
    pub value: String,
    pub description: String,
    pub line: usize,
    pub end_line: usize,
}

/// A secret or an agent by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    pub name: String,
    pub required: bool,
    pub line: usize,
    pub end_line: usize,
}

/// Every stage, in the order of the file; the last is the default.
pub fn targets(file: &Dockerfile) -> Vec<Target> {
    let last = file.stages.len() - 1;
    let target = |(number, stage): (usize, &Stage)| Target {
        name: stage.name.clone().unwrap_or_default(),
        default: number == last,
        description: described(&stage.comments, stage.name.as_deref().unwrap_or_default()),
        base: stage.base.clone(),
        platform: stage.platform.clone().unwrap_or_default(),
        line: stage.line,
        end_line: stage.end_line,
    };
    file.stages.iter().enumerate().map(target).collect()
}

/// What the graph's target takes.
pub fn outline(file: &Dockerfile, graph: &StageGraph, globals: &Globals, lexer: &Lexer) -> Outline {
    let stage = &file.stages[graph.target];
    let name = stage.name.clone().unwrap_or_default();
    let description = described(&stage.comments, &name);
    let mut outline = Outline { name, description, ..Outline::default() };
    let mut scopes: Vec<Scope> = Vec::new();
    for (number, stage) in file.stages.iter().enumerate() {
        let scope = match graph.nodes[number].base {
            Origin::Stage(base) => scopes[base].inherited(),
            _ => Scope::default(),
        };
        let mut capture = Capture { scope, globals, lexer, infos: globals.declared.clone(), used: BTreeSet::new() };
        let needed = graph.needed.contains(&number) && !graph.nodes[number].replaced;
        capture.stage(stage, needed.then_some(&mut outline));
        scopes.push(capture.scope);
    }
    outline.args.sort_by_key(|arg| arg.line);
    outline
}

/// One stage's arguments and mounts.
struct Capture<'a> {
    scope: Scope,
    globals: &'a Globals,
    lexer: &'a Lexer,
    /// The latest definition of each argument counts.
    infos: Vec<GlobalArg>,
    used: BTreeSet<String>,
}

impl Capture<'_> {
    fn stage(&mut self, stage: &Stage, outline: Option<&mut Outline>) {
        let globals = self.globals;
        for word in std::iter::once(&stage.base).chain(&stage.platform) {
            // What cannot be expanded fails the build by itself.
            if let Ok(expanded) = self.lexer.expand_traced(word, &|name| globals.value(name)) {
                self.used.extend(expanded.matched);
            }
        }
        let mut mounts = Vec::new();
        for instruction in &stage.instructions {
            self.instruction(instruction, &mut mounts);
        }
        let Some(outline) = outline else { return };
        for (kind, mount) in mounts {
            let list = if kind == MountType::Secret { &mut outline.secrets } else { &mut outline.ssh };
            if list.iter().all(|known| known.name != mount.name) {
                list.push(mount);
            }
        }
        self.arguments(outline);
    }

    fn instruction(&mut self, instruction: &Instruction, mounts: &mut Vec<(MountType, OutlineMount)>) {
        match &instruction.kind {
            Kind::Arg(declarations) => {
                for declaration in declarations {
                    let value = self.scope.declare(declaration, self.globals, self.lexer).unwrap_or_default();
                    self.used.insert(declaration.name.clone());
                    let inherited = declaration.default.is_none() && self.globals.given(&declaration.name).is_none();
                    if inherited && self.globals.value(&declaration.name).is_some() {
                        continue;
                    }
                    self.infos.retain(|info| info.name != declaration.name);
                    self.infos.push(GlobalArg {
                        name: declaration.name.clone(),
                        value,
                        uses: Vec::new(),
                        line: instruction.line,
                        end_line: instruction.end_line,
                        comment: described(&instruction.comments, &declaration.name),
                    });
                }
            }
            Kind::Env(pairs) => {
                for (name, value) in pairs {
                    let expand = |text: &str| self.lexer.expand(text, &|name| self.scope.value(name));
                    if let (Ok(name), Ok(value)) = (expand(name), expand(value)) {
                        self.scope.set(&name, &value);
                    }
                }
            }
            Kind::Run(run) => {
                let lookup = |name: &str| self.scope.value(name);
                let read = run.mounts.iter().filter_map(|mount| mount.expanded(self.lexer, &lookup, "/").ok());
                mounts.extend(read.filter(|mount| matches!(mount.kind, MountType::Secret | MountType::Ssh)).map(
                    |mount| {
                        let (line, end_line) = (instruction.line, instruction.end_line);
                        (mount.kind, OutlineMount { name: mount.id, required: mount.required, line, end_line })
                    },
                ));
            }
            _ => {}
        }
    }

    /// Arguments that the stage uses, and those that their defaults use.
    fn arguments(&self, outline: &mut Outline) {
        let mut open: Vec<&str> = self.used.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            let Some(info) = self.infos.iter().rev().find(|info| info.name == name) else { continue };
            if outline.args.iter().any(|known| known.name == name) {
                continue;
            }
            open.extend(info.uses.iter().map(String::as_str));
            outline.args.push(OutlineArg {
                name: info.name.clone(),
                value: info.value.clone().unwrap_or_default(),
                description: info.comment.clone(),
                line: info.line,
                end_line: info.end_line,
            });
        }
    }
}

/// Lines of the only source, as BuildKit's answers to subrequests tell them.
pub fn location(line: usize, end_line: usize) -> Value {
    json!({ "ranges": [{ "start": { "line": line }, "end": { "line": end_line } }] })
}

/// An object without its empty strings and false flags, as Go's `omitempty` leaves them out.
pub(crate) fn filled(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let empty = |value: &Value| match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(on) => !on,
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    Value::Object(fields.into_iter().filter(|(_, value)| !empty(value)).collect())
}

impl Target {
    /// As BuildKit's `frontend.targets` answers.
    pub fn json(&self) -> Value {
        let Self { name, default, description, base, platform, line, end_line } = self;
        let location = location(*line, *end_line);
        filled(json!({ "name": name, "default": default, "description": description, "base": base,
            "platform": platform, "location": location }))
    }
}

impl Outline {
    /// As BuildKit's `frontend.outline` answers, without the sources.
    pub fn json(&self) -> Value {
        let Self { name, description, args, secrets, ssh } = self;
        let args: Vec<Value> = args.iter().map(OutlineArg::json).collect();
        let mounts = |mounts: &[OutlineMount]| mounts.iter().map(OutlineMount::json).collect::<Vec<_>>();
        filled(json!({ "name": name, "description": description, "args": args, "secrets": mounts(secrets),
            "ssh": mounts(ssh) }))
    }
}

impl OutlineArg {
    fn json(&self) -> Value {
        let Self { name, value, description, line, end_line } = self;
        let location = location(*line, *end_line);
        filled(json!({ "name": name, "description": description, "value": value, "location": location }))
    }
}

impl OutlineMount {
    fn json(&self) -> Value {
        let Self { name, required, line, end_line } = self;
        filled(json!({ "name": name, "required": required, "location": location(*line, *end_line) }))
    }
}
