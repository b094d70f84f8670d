//! Builds the tree of a Go template.

use serde_json::Value;

use super::lexer::{Spanned, Token, lex};

#[derive(Debug, Clone)]
pub enum Node {
    Text(String),
    Action(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub struct Pipeline {
    /// `$x :=` or `$k, $v :=`.
    pub variables: Vec<String>,
    pub commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone)]
pub struct Operand {
    pub base: Base,
    /// `.A.B` after the base.
    pub fields: Vec<String>,
    /// Where Go says that an error in it is.
    pub position: usize,
}

#[derive(Debug, Clone)]
pub enum Base {
    Dot,
    Variable(String),
    Function(String),
    Literal(Value),
    Nil,
    Paren(Box<Pipeline>),
}

pub fn parse(source: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser { tokens: lex(source)?, at: 0 };
    let (nodes, end) = parser.list()?;
    match end {
        Stop::Eof => Ok(nodes),
        _ => Err("unexpected {{end}}".into()),
    }
}

/// What a list of nodes ended with.
enum Stop {
    Eof,
    End,
    Else,
}

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn spaces(&mut self) {
        while self.peek() == Some(&Token::Char(' ')) {
            self.at += 1;
        }
    }

    fn keyword(&mut self, word: &str) -> bool {
        self.spaces();
        let found = matches!(self.peek(), Some(Token::Ident(name)) if name == word);
        if found {
            self.at += 1;
        }
        found
    }

    fn close(&mut self) -> Result<(), String> {
        self.spaces();
        if self.peek() != Some(&Token::Close) {
            return Err("unexpected token before the end of the action".into());
        }
        self.at += 1;
        Ok(())
    }

    fn list(&mut self) -> Result<(Vec<Node>, Stop), String> {
        let mut nodes = Vec::new();
        while let Some(token) = self.peek().cloned() {
            self.at += 1;
            match token {
                Token::Text(text) => nodes.push(Node::Text(text)),
                _ if self.keyword("end") => {
                    self.close()?;
                    return Ok((nodes, Stop::End));
                }
                // The caller reads on after `else`: `if`, `with`, or the end of the action.
                _ if self.keyword("else") => return Ok((nodes, Stop::Else)),
                _ if self.keyword("if") => nodes.push(self.branch("if")?),
                _ if self.keyword("with") => nodes.push(self.branch("with")?),
                _ if self.keyword("range") => nodes.push(self.branch("range")?),
                _ if self.keyword("break") => {
                    self.close()?;
                    nodes.push(Node::Break);
                }
                _ if self.keyword("continue") => {
                    self.close()?;
                    nodes.push(Node::Continue);
                }
                _ => {
                    let pipeline = self.pipeline()?;
                    self.close()?;
                    nodes.push(Node::Action(pipeline));
                }
            }
        }
        Ok((nodes, Stop::Eof))
    }

    fn branch(&mut self, kind: &str) -> Result<Node, String> {
        let pipeline = self.pipeline()?;
        self.close()?;
        let (then, end) = self.list()?;
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Eof => return Err("unexpected EOF".into()),
            Stop::Else if self.keyword("if") => vec![self.branch("if")?],
            Stop::Else if self.keyword("with") => vec![self.branch("with")?],
            Stop::Else => {
                self.close()?;
                let (nodes, end) = self.list()?;
                if !matches!(end, Stop::End) {
                    return Err("unexpected EOF".into());
                }
                nodes
            }
        };
        Ok(match kind {
            "if" => Node::If { condition: pipeline, then, otherwise },
            "with" => Node::With { value: pipeline, then, otherwise },
            _ => Node::Range { over: pipeline, body: then, otherwise },
        })
    }

    fn pipeline(&mut self) -> Result<Pipeline, String> {
        let start = self.at;
        let mut variables = Vec::new();
        loop {
            self.spaces();
            let Some(Token::Variable(name)) = self.peek().cloned() else { break };
            self.at += 1;
            variables.push(name);
            self.spaces();
            match self.peek() {
                Some(Token::Char(',')) => self.at += 1,
                _ => break,
            }
        }
        if !variables.is_empty() && matches!(self.peek(), Some(Token::Char(':' | '='))) {
            self.at += 1;
        } else {
            variables.clear();
            self.at = start;
        }
        let mut commands = vec![self.command()?];
        while self.peek() == Some(&Token::Char('|')) {
            self.at += 1;
            commands.push(self.command()?);
        }
        Ok(Pipeline { variables, commands })
    }

    fn command(&mut self) -> Result<Vec<Operand>, String> {
        let mut operands = Vec::new();
        loop {
            self.spaces();
            match self.peek() {
                None | Some(Token::Close | Token::Char('|' | ')')) => break,
                _ => operands.push(self.operand()?),
            }
        }
        if operands.is_empty() { Err("missing value for command".into()) } else { Ok(operands) }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        let (token, mut position) = self.tokens.get(self.at).cloned().ok_or("unexpected EOF")?;
        self.at += 1;
        let mut fields = Vec::new();
        let base = match token {
            Token::Dot => Base::Dot,
            Token::Field(name) => {
                fields.push(name);
                Base::Dot
            }
            Token::Variable(name) => Base::Variable(name),
            Token::Ident(name) => match name.as_str() {
                "true" => Base::Literal(true.into()),
                "false" => Base::Literal(false.into()),
                "nil" => Base::Nil,
                _ => Base::Function(name),
            },
            Token::Number(text) => {
                let number = text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<f64>().map(Value::from));
                Base::Literal(number.map_err(|_| format!("bad number syntax: {text:?}"))?)
            }
            Token::Text2(text) => Base::Literal(text.into()),
            Token::Char('(') => {
                let inner = self.pipeline()?;
                self.spaces();
                if self.peek() != Some(&Token::Char(')')) {
                    return Err("unclosed left paren".into());
                }
                self.at += 1;
                Base::Paren(Box::new(inner))
            }
            _ => return Err("unexpected token in operand".into()),
        };
        let mut first = true;
        while let Some((Token::Field(name), at)) = self.tokens.get(self.at).cloned() {
            if first {
                position = at;
                first = false;
            }
            fields.push(name);
            self.at += 1;
        }
        Ok(Operand { base, fields, position })
    }
}
