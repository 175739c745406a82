//! The tool with Google: the roles that it prints are sufficient, and errors name a missing one.

use e2e::google::{Google, Grant, Options};
use serde_json::Value;

use crate::program::Program;

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_roles_are_what_the_tool_needs() {
    let Some(mut program) = Program::found() else {
        return;
    };
    let google = Google::start(Options::default()).await.unwrap();
    program.set("SECRET_STORE_GCP_ENDPOINT_URL", &google.endpoint());
    program.set_credential(
        "SECRET_STORE_GCP_CREDENTIALS",
        &google.service_account_json(),
    );
    let number = google.project_number().to_string();
    let url = format!("gcp://{}", google.project());
    let policy = ["policy", "gcp", "--project-number", &number];
    let roles = async |more: &[&str]| {
        let printed = program.run(&[&policy, more].concat()).await.expect(0);
        let commands = printed["commands"].as_array().unwrap();
        assert!(commands.len() >= 6, "{printed}");
        grants(&printed["policy"])
    };
    let all = roles(&[]).await;
    let reading = roles(&["--read-only"]).await;

    google.switches(|switches| switches.granted = Some(all.clone()));
    let check = ["check", "--store", &url];
    program.run(&check).await.expect(0);
    assert!(google.secrets().is_empty(), "{:?}", google.secrets());

    google.switches(|switches| switches.granted = Some(reading));
    let reader = program.run(&check).await;
    assert_ne!(reader.status, 0, "a reader has written: {}", reader.text);
    let text = "secretmanager.secrets.create on projects/stand-in-project";
    assert!(reader.text.contains(text), "{}", reader.text);

    // Without the permission to delete, it works and reports what will remain.
    google.switches(|switches| {
        switches.granted = Some(all);
        switches.deny("secretmanager.secrets.delete");
    });
    let ended = program.run(&check).await;
    assert!(
        ended.text.contains("cannot delete: superseded"),
        "{}",
        ended.text
    );
    google.switches(|switches| switches.api_disabled = true);
    let ended = program.run(&check).await;
    assert!(
        ended.text.contains("gcloud services enable"),
        "{}",
        ended.text
    );
}

/// The permissions of roles and conditions. An unknown condition fails the test.
fn grants(policy: &Value) -> Vec<Grant> {
    let roles = policy["roles"].as_array().unwrap().iter();
    roles
        .zip(policy["bindings"].as_array().unwrap())
        .map(|(role, binding)| {
            let permissions = role["includedPermissions"].as_array().unwrap();
            let permissions = permissions.iter().map(|text| text.as_str().unwrap());
            let expression = binding["condition"]["expression"].as_str();
            expression
                .into_iter()
                .flat_map(|text| text.split(" || "))
                .fold(Grant::new(permissions), |grant, call| {
                    let prefix = call.strip_prefix("resource.name.startsWith(\"").unwrap();
                    grant.on_names_beginning(prefix.strip_suffix("\")").unwrap())
                })
        })
        .collect()
}
