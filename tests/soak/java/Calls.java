import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * Calls with the default HTTP client of the JDK, which offers HTTP/2 with every request: one after
 * the other, and then some side by side. Prints how many were answered as they should be, and how
 * many were lost.
 *
 * Arguments: the base URL, an API key, an account's id, how many calls of each kind.
 */
public class Calls {
    private static final Duration PATIENCE = Duration.ofSeconds(20);
    private static final String BODY =
        "{\"origin_owner_id\":\"c\",\"origin_owner_name\":\"C\"}";

    private final HttpClient client = HttpClient.newHttpClient();
    private final String base;
    private final String key;
    private final String account;
    private int answered;
    private int lost;

    private Calls(String base, String key, String account) {
        this.base = base;
        this.key = key;
        this.account = account;
    }

    public static void main(String[] arguments) throws InterruptedException {
        Calls calls = new Calls(arguments[0], arguments[1], arguments[2]);
        int count = Integer.parseInt(arguments[3]);
        calls.oneByOne(count);
        calls.sideBySide(count);
        System.out.println("answered=" + calls.answered + " lost=" + calls.lost);
    }

    private HttpRequest.Builder request(String path) {
        return HttpRequest.newBuilder(URI.create(base + path))
            .timeout(PATIENCE)
            .header("authorization", "Bearer " + key)
            .header("x-account-id", account)
            .header("content-type", "application/json");
    }

    /** A body of a known length, one in chunks, a read, and a read of which the caller has the page. */
    private HttpRequest kind(int number) {
        switch (number % 4) {
            case 0:
                return request("/connect_sessions").POST(BodyPublishers.ofString(BODY)).build();
            case 1:
                byte[] bytes = BODY.getBytes(StandardCharsets.UTF_8);
                return request("/connect_sessions")
                    .POST(BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes)))
                    .build();
            case 2:
                return request("/iam/users?page_size=100").GET().build();
            default:
                return request("/iam/users").header("if-none-match", "*").GET().build();
        }
    }

    private static int expected(int number) {
        return new int[] {201, 201, 200, 304}[number % 4];
    }

    private synchronized void note(int number, HttpResponse<String> response, Throwable fault) {
        if (fault == null && response.statusCode() == expected(number)) {
            answered++;
            return;
        }
        lost++;
        System.out.println(number + ": " + (fault == null ? response.statusCode() : fault));
    }

    private void oneByOne(int count) throws InterruptedException {
        for (int number = 0; number < 4 * count; number++) {
            try {
                note(number, client.send(kind(number), BodyHandlers.ofString()), null);
            } catch (IOException fault) {
                note(number, null, fault);
            }
        }
    }

    private void sideBySide(int count) {
        for (int from = 0; from < 4 * count; from += 16) {
            List<CompletableFuture<Void>> calls = new ArrayList<>();
            for (int number = from; number < Math.min(from + 16, 4 * count); number++) {
                int own = number;
                calls.add(
                    client
                        .sendAsync(kind(own), BodyHandlers.ofString())
                        .handle((response, fault) -> {
                            note(own, response, fault);
                            return null;
                        }));
            }
            CompletableFuture.allOf(calls.toArray(new CompletableFuture[0])).join();
        }
    }
}
