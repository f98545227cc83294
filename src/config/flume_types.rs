//! Flume's component types, so that a type that exists in Flume but not here is told from a slip of the finger.

use super::Kind;

const SOURCES: &[(&str, &str)] = &[
    ("seq", "org.apache.flume.source.SequenceGeneratorSource"),
    ("netcat", "org.apache.flume.source.NetcatSource"),
    ("exec", "org.apache.flume.source.ExecSource"),
    ("avro", "org.apache.flume.source.AvroSource"),
    ("syslogtcp", "org.apache.flume.source.SyslogTcpSource"),
    ("multiport_syslogtcp", "org.apache.flume.source.MultiportSyslogTCPSource"),
    ("syslogudp", "org.apache.flume.source.SyslogUDPSource"),
    ("spooldir", "org.apache.flume.source.SpoolDirectorySource"),
    ("http", "org.apache.flume.source.http.HTTPSource"),
    ("thrift", "org.apache.flume.source.ThriftSource"),
    ("jms", "org.apache.flume.source.jms.JMSSource"),
    ("taildir", "org.apache.flume.source.taildir.TaildirSource"),
    ("netcatudp", "org.apache.flume.source.NetcatUdpSource"),
    ("", "org.apache.flume.source.kafka.KafkaSource"),
    ("", "org.apache.flume.source.StressSource"),
    ("", "org.apache.flume.source.scribe.ScribeSource"),
    ("", "org.apache.flume.source.twitter.TwitterSource"),
    ("", "org.apache.flume.source.avroLegacy.AvroLegacySource"),
    ("", "org.apache.flume.source.thriftLegacy.ThriftLegacySource"),
];

const CHANNELS: &[(&str, &str)] = &[
    ("memory", "org.apache.flume.channel.MemoryChannel"),
    ("file", "org.apache.flume.channel.file.FileChannel"),
    ("jdbc", "org.apache.flume.channel.jdbc.JdbcChannel"),
    ("spillablememory", "org.apache.flume.channel.SpillableMemoryChannel"),
    ("", "org.apache.flume.channel.kafka.KafkaChannel"),
    ("", "org.apache.flume.channel.PseudoTxnMemoryChannel"),
];

const SINKS: &[(&str, &str)] = &[
    ("null", "org.apache.flume.sink.NullSink"),
    ("logger", "org.apache.flume.sink.LoggerSink"),
    ("file_roll", "org.apache.flume.sink.RollingFileSink"),
    ("hdfs", "org.apache.flume.sink.hdfs.HDFSEventSink"),
    ("irc", "org.apache.flume.sink.irc.IRCSink"),
    ("avro", "org.apache.flume.sink.AvroSink"),
    ("thrift", "org.apache.flume.sink.ThriftSink"),
    ("elasticsearch", "org.apache.flume.sink.elasticsearch.ElasticSearchSink"),
    ("hbase", "org.apache.flume.sink.hbase.HBaseSink"),
    ("asynchbase", "org.apache.flume.sink.hbase.AsyncHBaseSink"),
    ("hbase2", "org.apache.flume.sink.hbase2.HBase2Sink"),
    ("morphline_solr", "org.apache.flume.sink.solr.morphline.MorphlineSolrSink"),
    ("hive", "org.apache.flume.sink.hive.HiveSink"),
    ("http", "org.apache.flume.sink.http.HttpSink"),
    ("", "org.apache.flume.sink.kafka.KafkaSink"),
    ("", "org.apache.flume.sink.kudu.KuduSink"),
    ("", "org.apache.flume.sink.solr.morphline.MorphlineSink"),
    ("", "org.apache.flume.sink.kite.DatasetSink"),
    ("", "org.apache.spark.streaming.flume.sink.SparkSink"),
];

/// Whether Flume, or Spark for it, has a type of this alias or class name.
pub fn flume_alias_or_class(kind: Kind, text: &str) -> bool {
    let types = match kind {
        Kind::Source => SOURCES,
        Kind::Channel => CHANNELS,
        Kind::Sink => SINKS,
        Kind::SinkGroup | Kind::ConfigFilter => &[],
    };
    types.iter().any(|(alias, class)| {
        (!alias.is_empty() && alias.eq_ignore_ascii_case(text)) || class.eq_ignore_ascii_case(text)
    })
}
