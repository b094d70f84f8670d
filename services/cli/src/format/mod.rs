//! How answers are printed: Go templates, Docker's tables, indented JSON.

pub mod functions;
pub mod json;
pub mod lexer;
pub mod parser;
pub mod table;
pub mod template;
