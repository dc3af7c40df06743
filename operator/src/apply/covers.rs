//! Whether an object of the API server shows everything that is wanted of it.

use serde_json::Value;

/// True when every field of `wanted` is in `live` with the same meaning.
///
/// `live` may have more: defaults of the API server, fields of other managers. Lists have to be of one length, so that a
/// container or port added by hand is noticed. Empty objects, empty lists and nulls may be missing: the API server drops
/// some of them. Quantities are compared by value: it writes `1000m` as `1`.
pub(crate) fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            live.get(key)
                .map_or_else(|| is_empty(wanted), |live| covers(live, wanted))
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted))
        }
        (live, wanted) => live == wanted || (is_empty(live) && is_empty(wanted)) || same_quantity(live, wanted),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn same_quantity(one: &Value, other: &Value) -> bool {
    match (quantity(one), quantity(other)) {
        (Some(one), Some(other)) => (one - other).abs() <= one.abs() * f64::EPSILON,
        _ => false,
    }
}

/// A number with a suffix of Kubernetes, as a number.
fn quantity(value: &Value) -> Option<f64> {
    let text = match value {
        Value::Number(number) => return number.as_f64(),
        Value::String(text) => text.as_str(),
        _ => return None,
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024f64,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_fields_of_others_do_not_matter() {
        let live = json!({"spec": {"ports": [{"port": 5432, "protocol": "TCP"}], "type": "ClusterIP"}, "status": {}});
        assert!(covers(&live, &json!({"spec": {"ports": [{"port": 5432}]}})));
    }

    #[test]
    fn a_changed_missing_or_added_part_matters() {
        let live = json!({"labels": {"a": "1"}, "ports": [{"port": 5432}, {"port": 1}]});
        assert!(!covers(&live, &json!({"labels": {"a": "2"}})));
        assert!(!covers(&live, &json!({"labels": {"b": "1"}})));
        assert!(!covers(&live, &json!({"ports": [{"port": 5432}]})));
    }

    #[test]
    fn quantities_are_compared_by_value() {
        assert!(covers(
            &json!({"cpu": "1", "memory": "1Gi"}),
            &json!({"cpu": "1000m", "memory": "1024Mi"})
        ));
        assert!(!covers(&json!({"cpu": "1"}), &json!({"cpu": "1001m"})));
        assert!(!covers(&json!({"image": "a:1"}), &json!({"image": "a:2"})));
    }

    #[test]
    fn what_is_empty_may_be_missing() {
        assert!(covers(&json!({}), &json!({"labels": {}, "list": [], "none": null})));
        assert!(!covers(&json!({}), &json!({"on": false})));
    }
}
