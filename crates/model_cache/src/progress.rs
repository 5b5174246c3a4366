//! Progress bars for bytes.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `total` bytes on stderr. Where stderr is no terminal nothing is drawn, and the
/// label is printed once instead, so that a log still says what is going on.
pub fn byte_bar(label: impl Into<String>, total: u64) -> ProgressBar {
    let label = label.into();
    let bar = ProgressBar::new(total);
    if bar.is_hidden() {
        eprintln!("{label} ({})", indicatif::DecimalBytes(total));
    }
    let style = ProgressStyle::with_template(
        "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
    );
    // The template is a constant, tested below.
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(label)
}
