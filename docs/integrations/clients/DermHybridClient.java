import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.Locale;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A client of DermHybrid to copy into your own code: one file, Java 17, nothing but the JDK.
 *
 * <pre>DERMHYBRID_KEY=dhk_... java DermHybridClient.java http://localhost:8000 IMAGE</pre>
 *
 * Research software, not a medical device. Read {@code decision.action} before anything else: a
 * rejected answer has no class and no probability. Every call may be repeated; an answer changes
 * nothing, and the request id stays the same over all attempts.
 */
public final class DermHybridClient {
    /** No answer: what was sent is refused, the key does not do, or it took too long. */
    public static final class Failure extends Exception {
        private static final long serialVersionUID = 1;

        /** HTTP status; 0 where the service could not be reached. */
        public final int status;
        /** Last part of the problem's type, such as "image-corrupt"; empty where there is none. */
        public final String kind;

        Failure(int status, String kind, String detail) {
            super(status + " " + kind + ": " + detail);
            this.status = status;
            this.kind = kind;
        }
    }

    private static final Duration LONGEST_ATTEMPT = Duration.ofSeconds(30);
    private static final double LONGEST_PAUSE_SECONDS = 8;

    private final HttpClient http =
        HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .connectTimeout(Duration.ofSeconds(10))
            .followRedirects(HttpClient.Redirect.NEVER)
            .build();
    private final String url;
    private final String key;
    private final Duration deadline;

    /**
     * @param url of the service; https beyond this machine, for the key and the pictures
     * @param key API key or access token; null where the service asks for none
     * @param deadline for a call, with all its attempts and pauses
     */
    public DermHybridClient(String url, String key, Duration deadline) {
        this.url = url;
        this.key = key;
        this.deadline = deadline;
    }

    /**
     * Ask about one picture: JPEG, PNG, TIFF, WebP, or a DICOM photograph.
     *
     * @return the answer's JSON, for the JSON library that you have
     */
    public String predict(byte[] image) throws Failure, InterruptedException {
        return post("/predict?heatmap=false", "application/octet-stream", image);
    }

    /** Have a DICOM photograph answered in the archive; returns the receipt's JSON. */
    public String sendDicom(byte[] instance) throws Failure, InterruptedException {
        return post("/dicom/studies", "application/dicom", instance);
    }

    private String post(String path, String mediaType, byte[] body)
            throws Failure, InterruptedException {
        Instant end = Instant.now().plus(deadline);
        String requestId = UUID.randomUUID().toString();
        for (int attempt = 0; ; attempt++) {
            Duration left = Duration.between(Instant.now(), end);
            Duration time = left.compareTo(LONGEST_ATTEMPT) < 0 ? left : LONGEST_ATTEMPT;
            if (time.toMillis() < 1) {
                time = Duration.ofMillis(1);
            }
            HttpRequest.Builder request =
                HttpRequest.newBuilder(URI.create(url + path))
                    .timeout(time)
                    .header("Content-Type", mediaType)
                    .header("X-Request-ID", requestId)
                    // The service gives up when nobody waits any more.
                    .header("X-Request-Timeout",
                        String.format(Locale.ROOT, "%.3f", time.toMillis() / 1000.0))
                    .POST(BodyPublishers.ofByteArray(body));
            if (key != null) {
                request.header("Authorization", "Bearer " + key);
            }
            double pause =
                ThreadLocalRandom.current().nextDouble(0.5, 1)
                    * Math.min(LONGEST_PAUSE_SECONDS, Math.pow(2, attempt));
            Failure failure;
            try {
                HttpResponse<String> response = http.send(request.build(), BodyHandlers.ofString());
                int status = response.statusCode();
                if (status / 100 == 2) {
                    return response.body();
                }
                String kind = text(response.body(), "type");
                failure = new Failure(status, kind.substring(kind.lastIndexOf(':') + 1),
                    text(response.body(), "detail"));
                if (status != 408 && status != 429 && status != 503) {
                    throw failure;
                }
                String retryAfter = response.headers().firstValue("Retry-After").orElse("");
                if (retryAfter.matches("[0-9]{1,6}")) {
                    pause = Integer.parseInt(retryAfter)
                        + ThreadLocalRandom.current().nextDouble(0.5);
                }
            } catch (IOException error) {
                failure = new Failure(0, "no-answer", error.getClass().getSimpleName());
            }
            if (Instant.now().plusMillis((long) (pause * 1000)).isAfter(end)) {
                throw failure;
            }
            Thread.sleep((long) (pause * 1000));
        }
    }

    /** The first string of that name: enough for problems and decisions, no JSON parser. */
    static String text(String json, String name) {
        Matcher found =
            Pattern.compile("\"" + name + "\"\\s*:\\s*\"((?:[^\"\\\\]|\\\\.)*)\"").matcher(json);
        return found.find() ? found.group(1) : "";
    }

    public static void main(String[] arguments) throws Exception {
        DermHybridClient service =
            new DermHybridClient(arguments[0], System.getenv("DERMHYBRID_KEY"),
                Duration.ofSeconds(60));
        try {
            String answer = service.predict(Files.readAllBytes(Path.of(arguments[1])));
            System.out.println(text(answer, "action") + ": " + text(answer, "sentence"));
            System.out.println(text(answer, "notice"));
        } catch (Failure failure) {
            System.err.println(failure.getMessage());
            System.exit(1);
        }
    }
}
