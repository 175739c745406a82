import com.bettercloud.vault.Vault;
import com.bettercloud.vault.VaultConfig;
import com.bettercloud.vault.VaultException;
import com.bettercloud.vault.response.LogicalResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.UUID;
import java.util.concurrent.Callable;

/**
 * An unmodified platform: it writes, reads and deletes secrets as Airbyte does until its input ends, and prints the
 * answers.
 *
 * <pre>java -cp … Platform.java PREFIX WORKSPACE      the server is VAULT_ADDR, the token VAULT_TOKEN</pre>
 *
 * <p>Lines: {@code written NAME VALUE}, {@code deleting NAME}, {@code deleted NAME}, {@code wrong NAME WHAT}, and finally
 * {@code ended READS REPEATED}.
 */
public final class Platform {
  private static final Random RANDOM = new Random();
  private static final List<String[]> live = new ArrayList<>();
  private static Vault vault;
  private static volatile boolean closing;
  private static int reads;
  private static int repeated;

  public static void main(String[] arguments) throws Exception {
    String prefix = arguments[0];
    String workspace = arguments[1];
    vault = new Vault(
        new VaultConfig()
            .address(System.getenv("VAULT_ADDR"))
            .token(System.getenv("VAULT_TOKEN"))
            .engineVersion(2)
            .openTimeout(5)
            .readTimeout(60)
            .build());
    Thread listener = new Thread(Platform::waitForTheEnd);
    listener.setDaemon(true);
    listener.start();

    while (!closing) {
      String name = "airbyte_workspace_" + workspace + "_secret_" + UUID.randomUUID() + "_v1";
      String value = "canary-" + UUID.randomUUID();
      int status = until(() -> vault.logical().write(prefix + name, Map.of("value", value)));
      if (status == 200) {
        live.add(new String[] {name, value});
        say("written " + name + " " + value);
      } else {
        say("wrong " + name + " the write answered " + status);
      }
      for (int look = 0; look < 3; look++) {
        read(prefix, live.get(RANDOM.nextInt(live.size())));
      }
      if (live.size() > 3 && RANDOM.nextInt(8) == 0) {
        String old = live.remove(RANDOM.nextInt(live.size()))[0];
        say("deleting " + old);
        status = until(() -> vault.logical().delete(prefix + old));
        say((status == 204 ? "deleted " + old : "wrong " + old + " the delete answered " + status));
      }
      Thread.sleep(20);
    }
    for (String[] secret : live) {
      read(prefix, secret);
    }
    say("ended " + reads + " " + repeated);
  }

  private static void waitForTheEnd() {
    try {
      while (System.in.read() >= 0) {}
    } catch (java.io.IOException error) {
      // Treated like the end of the input.
    }
    closing = true;
  }

  private static void read(String prefix, String[] secret) throws Exception {
    String[] seen = new String[1];
    int status = until(() -> {
      LogicalResponse response = vault.logical().read(prefix + secret[0]);
      seen[0] = response.getData().get("value");
      return response;
    });
    reads++;
    if (status != 200 || !secret[1].equals(seen[0])) {
      say("wrong " + secret[0] + " the read answered " + status);
    }
  }

  /** The status. The request is repeated if there is no answer, and after 429 and 5xx. */
  private static int until(Callable<LogicalResponse> call) throws Exception {
    while (true) {
      int status;
      try {
        status = call.call().getRestResponse().getStatus();
      } catch (VaultException error) {
        status = error.getHttpStatusCode();
      }
      if (status != 0 && status != 429 && status < 500) {
        return status;
      }
      repeated++;
      Thread.sleep(100);
    }
  }

  private static void say(String line) {
    System.out.println(line);
    System.out.flush();
  }
}
