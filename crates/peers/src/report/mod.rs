//! A run's results, as tables in a terminal and in Markdown, and as a page.

mod html;
mod plot;
mod table;
mod units;

pub use html::html;
pub use table::{markdown, terminal};
