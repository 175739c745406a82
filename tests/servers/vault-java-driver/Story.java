import com.bettercloud.vault.Vault;
import com.bettercloud.vault.VaultConfig;
import com.bettercloud.vault.VaultException;
import com.bettercloud.vault.response.LogicalResponse;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.Callable;

/**
 * Uses a key/value engine as Airbyte does (address, token, engine version, prefix), through Airbyte's Vault client, and
 * prints one JSON line per step.
 *
 * <pre>java -cp … Story.java MOUNT NAME OTHER MISSING      the server is VAULT_ADDR, the token VAULT_TOKEN</pre>
 */
public final class Story {
  private static Vault vault;

  public static void main(String[] arguments) throws Exception {
    String prefix = arguments[0] + "/";
    String name = prefix + arguments[1];
    String other = prefix + arguments[2];
    String missing = prefix + arguments[3];
    vault = connect(System.getenv("VAULT_TOKEN"));

    step("health", () -> List.of(vault.debug().health().getInitialized(), vault.debug().health().getSealed()));
    step("lookup", () -> vault.auth().lookupSelf().getTTL() >= 0);
    step("renew", () -> !vault.auth().renewSelf().getAuthClientToken().isEmpty());
    step("read missing", () -> read(missing));
    step("list nothing", () -> names(prefix));
    step("write", () -> write(name, "hunter2 ü\n"));
    step("read", () -> read(name));
    step("write the equal value", () -> write(name, "hunter2 ü\n"));
    step("write other", () -> write(other, "x"));
    step("write another value", () -> write(other, "y"));
    step("list", () -> names(prefix));
    step("delete", () -> vault.logical().delete(name).getRestResponse().getStatus());
    step("read deleted", () -> read(name));
    step("delete what is not there", () -> vault.logical().delete(missing).getRestResponse().getStatus());
    step("delete other", () -> vault.logical().delete(other).getRestResponse().getStatus());
    vault = connect("hvs.nobody");
    step("as nobody", () -> read(name));
    step("write as nobody", () -> write(missing, "x"));
  }

  private static Vault connect(String token) throws VaultException {
    return new Vault(new VaultConfig().address(System.getenv("VAULT_ADDR")).token(token).engineVersion(2).build());
  }

  /** Includes the status, because this client does not report a refused write as an error. */
  private static Object write(String path, String value) throws VaultException {
    LogicalResponse response = vault.logical().write(path, Map.of("value", value));
    return List.of(response.getRestResponse().getStatus(), response.getData().getOrDefault("version", "none"));
  }

  private static Object read(String path) throws VaultException {
    LogicalResponse response = vault.logical().read(path);
    return List.of(response.getRestResponse().getStatus(), response.getData().getOrDefault("value", "none"));
  }

  private static Object names(String path) throws VaultException {
    LogicalResponse response = vault.logical().list(path);
    return List.of(response.getRestResponse().getStatus(), new TreeSet<>(response.getListData()));
  }

  private static void step(String title, Callable<Object> run) throws Exception {
    Object seen;
    try {
      seen = run.call();
    } catch (VaultException error) {
      seen = "status " + error.getHttpStatusCode();
    }
    System.out.println("{\"step\":" + json(title) + ",\"seen\":" + json(seen) + "}");
  }

  private static String json(Object value) {
    if (value instanceof Iterable<?> items) {
      StringBuilder text = new StringBuilder("[");
      for (Object item : items) {
        text.append(text.length() > 1 ? "," : "").append(json(item));
      }
      return text.append(']').toString();
    }
    if (value instanceof String text) {
      return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n") + '"';
    }
    return String.valueOf(value);
  }
}
