import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.flume.Event;
import org.apache.flume.EventDeliveryException;
import org.apache.flume.FlumeException;
import org.apache.flume.api.RpcClient;
import org.apache.flume.api.RpcClientFactory;
import org.apache.flume.event.EventBuilder;

/** SendBatches CLIENT_TYPE N HOST:PORT…: prints `accepted ID` for each event of a batch that an agent accepted. */
public class SendBatches {
  private static final int BATCH = 10;

  public static void main(String[] args) throws Exception {
    Properties properties = new Properties();
    properties.setProperty("client.type", args[0]);
    StringBuilder hosts = new StringBuilder();
    for (int i = 2; i < args.length; i++) {
      hosts.append(" h").append(i);
      properties.setProperty("hosts.h" + i, args[i]);
    }
    properties.setProperty("hosts", hosts.toString().trim());
    int n = Integer.parseInt(args[1]);
    RpcClient client = RpcClientFactory.getInstance(properties);
    for (int id = 0; id < n; id += BATCH) {
      List<Event> batch = new ArrayList<>();
      for (int i = id; i < Math.min(id + BATCH, n); i++) {
        batch.add(EventBuilder.withBody(String.valueOf(i), StandardCharsets.UTF_8));
      }
      while (true) {
        try {
          client.appendBatch(batch);
          break;
        } catch (EventDeliveryException | FlumeException e) {
          System.out.println("refused " + id + ": " + e);
          Thread.sleep(100);
          if (!client.isActive()) {
            client.close();
            client = RpcClientFactory.getInstance(properties);
          }
        }
      }
      for (Event event : batch) {
        System.out.println("accepted " + new String(event.getBody(), StandardCharsets.UTF_8));
      }
      Thread.sleep(5);
    }
    client.close();
    System.out.println("sent " + n + " events");
  }
}
