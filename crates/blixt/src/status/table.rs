//! The view as text for people.

use std::fmt::Write;

use serde_json::Value;

use super::view::{BackendView, FrontendView, ObjectView, View};

/// Between two columns.
const GAP: &str = "   ";

/// The view as tables; `wide` ones have all columns.
pub fn render(view: &View, wide: bool) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", headline(view));
    section(&mut text, "Problems", &problems(view));
    section(&mut text, "Objects", &objects(view, wide));
    section(&mut text, "Frontends", &frontends(view, wide));
    section(&mut text, "Routes", &routes(view, wide));
    section(&mut text, "Drops", &drops(view));
    section(&mut text, "Hooks", &hooks(view, wide));
    text
}

type Row = Vec<String>;

fn headline(view: &View) -> String {
    let instance = &view.instance;
    let state = if !instance.ready {
        "not ready"
    } else if instance.applied_generation < instance.generation {
        "behind"
    } else {
        "ready"
    };
    let evicted = match instance.flow_entries_evicted {
        0 => String::new(),
        entries => format!(" ({entries} entries evicted)"),
    };
    format!(
        "blixt {}, {state}, config {}, pid {}, since {:.0}, about {} of {} flows{evicted}, instance {}",
        view.versions.blixt,
        instance.applied_generation,
        instance.pid,
        instance.started,
        instance.flows,
        instance.flow_capacity,
        instance.name,
    )
}

fn problems(view: &View) -> Vec<Row> {
    view.problems.iter().map(|problem| vec![problem.to_string()]).collect()
}

fn objects(view: &View, wide: bool) -> Vec<Row> {
    // Objects that nothing is told about matter to those who look for them.
    let shown: Vec<&ObjectView> =
        view.objects.iter().filter(|object| wide || !object.status.is_null()).collect();
    if shown.is_empty() {
        return Vec::new();
    }
    let mut header = vec!["KIND", "NAMESPACE", "NAME"];
    if wide {
        header.extend(["GENERATION", "FILE"]);
    }
    // Last, since they may be long.
    header.push("CONDITIONS");
    let row = |object: &ObjectView| {
        let mut row = vec![object.kind.clone(), object.namespace.clone(), object.name.clone()];
        if wide {
            row.push(object.generation.to_string());
            row.push(format!("{}:{}", object.file, object.line));
        }
        row.push(conditions(&object.status, &object.conditions, wide));
        row
    };
    with_header(&header, shown.into_iter().map(row))
}

/// `Accepted, Programmed` where all is well; otherwise what is not, with its reason and message.
fn conditions(status: &Value, conditions: &[Value], wide: bool) -> String {
    let field = |condition: &Value, name: &str| {
        condition.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let of_listeners = status.get("listeners").and_then(Value::as_array).into_iter().flatten();
    let of_listeners = of_listeners.flat_map(|listener| {
        let name = field(listener, "name");
        let conditions = listener.get("conditions").and_then(Value::as_array).into_iter().flatten();
        conditions
            .filter(|condition| is_trouble(&field(condition, "type"), &field(condition, "status")))
            .map(move |condition| (format!("listener {name}: "), condition))
    });
    let own = conditions.iter().map(|condition| (String::new(), condition));
    let text = |(part, condition): (String, &Value)| {
        let (kind, status) = (field(condition, "type"), field(condition, "status"));
        if is_trouble(&kind, &status) {
            let (reason, message) = (field(condition, "reason"), field(condition, "message"));
            return Some(format!("{part}{kind}={status} ({reason}: {message})"));
        }
        let is_fine = status == "True" || wide;
        is_fine.then(|| if status == "True" { kind } else { format!("{kind}={status}") })
    };
    let mut texts: Vec<String> = own.chain(of_listeners).filter_map(text).collect();
    texts.dedup();
    texts.join(", ")
}

fn is_trouble(kind: &str, status: &str) -> bool {
    let bad_if_true = matches!(kind, "Conflicted" | "PartiallyInvalid" | "blixt.dev/EndpointsRefused");
    if bad_if_true { status == "True" } else { status != "True" }
}

fn frontends(view: &View, wide: bool) -> Vec<Row> {
    if view.frontends.is_empty() {
        return Vec::new();
    }
    let mut header = vec!["FRONTEND", "ROUTE", "BACKEND", "STATE", "WAY", "SHARE", "CONNECTIONS"];
    if wide {
        header.extend(["LISTENER", "WEIGHT", "DEVICE", "RING"]);
    }
    let rows = view.frontends.iter().flat_map(|frontend| frontend_rows(frontend, wide));
    with_header(&header, rows)
}

/// The way of a backend, and whose it is not.
fn way(backend: &BackendView) -> String {
    let way = backend.way.as_deref().unwrap_or("-");
    if backend.nat_from.is_empty() {
        return way.to_owned();
    }
    format!("{way} (nat from {})", backend.nat_from.join(", "))
}

fn frontend_rows(frontend: &FrontendView, wide: bool) -> Vec<Row> {
    let route = frontend.route.clone().unwrap_or_else(|| "none".to_owned());
    let refused = || {
        let share = format!("{:.1}%", frontend.refused_percent);
        let cells = [&frontend.endpoint, &route, "-", "refused", "-", &share, "-"];
        let mut row: Row = cells.map(str::to_owned).into();
        if wide {
            row.extend([frontend.listener.clone(), "-".into(), "-".into(), frontend.ring_slots.to_string()]);
        }
        row
    };
    let sentence = |text: String| vec![frontend.endpoint.clone(), route.clone(), text];
    let backend = |backend: &BackendView| {
        let mut row = vec![
            frontend.endpoint.clone(),
            route.clone(),
            backend.endpoint.clone(),
            backend.state.clone(),
            way(backend),
            format!("{:.1}%", backend.percent),
            backend.connections.to_string(),
        ];
        if wide {
            row.extend([
                frontend.listener.clone(),
                backend.weight.to_string(),
                backend.device.clone().unwrap_or_else(|| "-".into()),
                frontend.ring_slots.to_string(),
            ]);
        }
        row
    };
    let mut rows: Vec<Row> = frontend.backends.iter().map(backend).collect();
    if let Some(error) = &frontend.error {
        rows.push(sentence(format!("error: {error}")));
    } else if frontend.refused_percent > 0.0 {
        rows.push(refused());
    }
    rows.extend(frontend.warnings.iter().map(|warning| sentence(format!("warning: {warning}"))));
    rows
}

fn routes(view: &View, wide: bool) -> Vec<Row> {
    if view.routes.is_empty() {
        return Vec::new();
    }
    let mut header = vec!["ROUTE", "CONNECTIONS", "REFUSED", "PACKETS IN", "PACKETS OUT"];
    if wide {
        header.extend(["BYTES IN", "BYTES OUT"]);
    }
    let rows = view.routes.iter().map(|route| {
        let mut row = vec![route.route.clone()];
        let mut numbers = vec![route.connections, route.refused, route.request_packets, route.reply_packets];
        if wide {
            numbers.extend([route.request_bytes, route.reply_bytes]);
        }
        row.extend(numbers.iter().map(ToString::to_string));
        row
    });
    with_header(&header, rows)
}

fn drops(view: &View) -> Vec<Row> {
    if view.drops.is_empty() {
        return Vec::new();
    }
    with_header(
        &["REASON", "PACKETS"],
        view.drops.iter().map(|(reason, packets)| vec![reason.clone(), packets.to_string()]),
    )
}

fn hooks(view: &View, wide: bool) -> Vec<Row> {
    if view.hooks.is_empty() {
        return Vec::new();
    }
    let mut header = vec!["DEVICE", "HOOK", "EGRESS"];
    if wide {
        header.push("INDEX");
    }
    let rows = view.hooks.iter().map(|hook| {
        if let Some(error) = &hook.error {
            return vec![hook.device.clone(), format!("error: {error}")];
        }
        let egress = if hook.egress { "yes" } else { "no" };
        let mut row = vec![hook.device.clone(), hook.hook.clone(), egress.into()];
        if wide {
            row.push(hook.ifindex.to_string());
        }
        row
    });
    with_header(&header, rows)
}

fn with_header(header: &[&str], rows: impl Iterator<Item = Row>) -> Vec<Row> {
    std::iter::once(header.iter().map(ToString::to_string).collect()).chain(rows).collect()
}

fn section(text: &mut String, title: &str, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        // A long sentence in a last column, or in a cell of its own, widens nothing.
        let cells = rows.iter().filter(|row| column + 1 < row.len()).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "  {}", cells.join(GAP).trim_end());
    }
}

#[cfg(test)]
mod tests;
